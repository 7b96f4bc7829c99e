//! A terminal in which a program runs, as wide as needed: a pseudoterminal and an emulator of its screen.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// Rows of the screen: more than any output has, so that nothing scrolls away.
const ROWS: u16 = 300;

/// A running program and its screen.
pub struct Terminal {
    child: Child,
    keyboard: File,
    output: Receiver<Vec<u8>>,
    written: Vec<u8>,
    screen: vt100::Parser,
    columns: u16,
}

impl Terminal {
    /// Starts `command` in a terminal of `columns` columns.
    pub fn start(mut command: Command, columns: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let size = Winsize { ws_row: ROWS, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).unwrap();
        let path = ptsname(&master, Vec::new()).unwrap();
        let side =
            || -> OwnedFd { rustix::fs::open(&path, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap() };
        command.stdin(side()).stdout(side()).stderr(side());
        if command.get_envs().all(|(name, _)| name != "TERM") {
            command.env("TERM", "xterm");
        }
        let child = command.spawn().unwrap();
        // The end of the output is seen once nobody else holds the other side.
        drop(command);
        let screen = vt100::Parser::new(ROWS, columns, 0);
        let keyboard = File::from(master);
        let mut reader = keyboard.try_clone().unwrap();
        let (sender, output) = mpsc::channel();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // Linux reports the end of the other side as an error.
            while let Ok(read @ 1..) = reader.read(&mut bytes) {
                if sender.send(bytes[..read].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, keyboard, output, written: Vec::new(), screen, columns }
    }

    /// The terminal after `command` has ended.
    pub fn after(command: Command, columns: u16) -> Self {
        let mut terminal = Self::start(command, columns);
        while terminal.read() {}
        terminal.child.wait().unwrap();
        terminal
    }

    /// Everything that was written, with its escape sequences.
    pub fn written(&self) -> String {
        String::from_utf8(self.written.clone()).unwrap()
    }

    /// The lines on the screen, each in one piece.
    pub fn lines(&self) -> String {
        self.screen.screen().contents()
    }

    /// Types `keys`.
    pub fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until the screen contains `words`.
    #[track_caller]
    pub fn wait_for(&mut self, words: &str) {
        while !self.rows().iter().any(|row| row.contains(words)) {
            assert!(self.read(), "no {words:?} in:\n{}", self.rows().join("\n"));
        }
    }

    /// The rows of the screen, without blank ones at the end.
    pub fn rows(&self) -> Vec<String> {
        let mut rows: Vec<String> =
            self.screen.screen().rows(0, self.columns).map(|row| row.trim_end().to_owned()).collect();
        while rows.last().is_some_and(String::is_empty) {
            rows.pop();
        }
        rows
    }

    /// Reads what the program writes next; false at its end, or if it writes nothing for a minute.
    fn read(&mut self) -> bool {
        let Ok(bytes) = self.output.recv_timeout(Duration::from_secs(60)) else { return false };
        self.screen.process(&bytes);
        self.written.extend(bytes);
        true
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
