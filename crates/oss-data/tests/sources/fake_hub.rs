//! A local Hub that behaves as instructed.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use oss_data::sources::HubConfig;
use oss_data::sources::hub::Token;
use sha2::Digest;

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
pub const CANARY: &str = "hf_canary_5f1d9c";

/// A recorded request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    pub path: String,
    pub range: Option<String>,
    pub token: Option<String>,
}

/// The behavior of the Hub, which a test can change at any time.
#[derive(Default)]
pub struct Behavior {
    /// Files by name; those named `*.bin` are large files, stored on another host and identified by their SHA-256.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Statuses to return before behaving normally, each with an error code.
    pub statuses: VecDeque<(u16, &'static str)>,
    /// Number of bytes of each body to send before hanging up.
    pub cuts: VecDeque<usize>,
    /// Sends different bytes than announced.
    pub corrupt: bool,
    /// Always sends the whole file, whatever range is requested.
    pub ignores_ranges: bool,
    /// Does not support revisions.
    pub without_api: bool,
    pub requests: Vec<Request>,
}

pub struct FakeHub {
    pub behavior: Arc<Mutex<Behavior>>,
    pub endpoint: String,
    /// Requests to the host of the large files.
    pub storage: Arc<Mutex<Vec<Request>>>,
}

impl FakeHub {
    pub fn start(files: &[(&str, &[u8])]) -> Self {
        let files = files.iter().map(|(name, bytes)| ((*name).to_string(), bytes.to_vec())).collect();
        let behavior = Arc::new(Mutex::new(Behavior { files, ..Behavior::default() }));
        let storage = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&storage);
        let known = Arc::clone(&behavior);
        // To a client, `localhost` and `127.0.0.1` are different hosts.
        let storage_port = listen(move |stream, request| {
            seen.lock().unwrap().push(request.clone());
            let name = request.path.trim_start_matches("/blob/").to_string();
            send_file(stream, &request, &name, &mut known.lock().unwrap(), "");
        });
        let known = Arc::clone(&behavior);
        let port = listen(move |stream, request| {
            let mut behavior = known.lock().unwrap();
            behavior.requests.push(request.clone());
            answer(stream, &request, &mut behavior, storage_port);
        });
        Self { behavior, endpoint: format!("http://127.0.0.1:{port}"), storage }
    }

    pub fn now(&self) -> MutexGuard<'_, Behavior> {
        self.behavior.lock().unwrap()
    }

    /// Settings for this Hub with a cache in `home` and short retry delays.
    pub fn config(&self, home: &Path) -> HubConfig {
        HubConfig {
            endpoint: self.endpoint.clone(),
            token: Token::new(CANARY),
            cache: home.join("hub"),
            offline: false,
            retries: 2,
            backoff: Duration::from_millis(1),
            timeout: Duration::from_secs(5),
        }
    }
}

fn listen(serve: impl Fn(&mut TcpStream, Request) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let serve = Arc::clone(&serve);
            std::thread::spawn(move || {
                let mut stream = stream.unwrap();
                if let Some(request) = parse(&stream) {
                    serve(&mut stream, request);
                }
            });
        }
    });
    port
}

fn parse(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines();
    let path = lines.next()?.ok()?.split(' ').nth(1)?.to_string();
    let mut request = Request { path, ..Request::default() };
    for line in lines {
        let line = line.ok()?;
        let Some((name, value)) = line.split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "range" => request.range = Some(value.into()),
            "authorization" => request.token = Some(value.into()),
            _ => {}
        }
    }
    Some(request)
}

fn answer(stream: &mut TcpStream, request: &Request, behavior: &mut Behavior, storage_port: u16) {
    if let Some((status, code)) = behavior.statuses.pop_front() {
        let code = if code.is_empty() { String::new() } else { format!("X-Error-Code: {code}\r\n") };
        // What a careless server might echo must not appear in the program's output.
        let body = format!("you sent {:?}", request.token);
        return reply(stream, status, &format!("{code}Retry-After: 0\r\n"), body.as_bytes(), None);
    }
    if request.path.starts_with("/api/datasets/ann/tales/revision/") && !behavior.without_api {
        let siblings: Vec<_> =
            behavior.files.keys().map(|name| serde_json::json!({"rfilename": name})).collect();
        let body = serde_json::json!({"sha": COMMIT, "siblings": siblings}).to_string();
        return reply(stream, 200, "", body.as_bytes(), None);
    }
    let resolved =
        request.path.strip_prefix("/datasets/ann/tales/resolve/").and_then(|rest| rest.split_once('/'));
    let Some((_, name)) = resolved.filter(|(_, name)| behavior.files.contains_key(*name)) else {
        return reply(stream, 404, "X-Error-Code: EntryNotFound\r\n", b"no", None);
    };
    let bytes = &behavior.files[name];
    let commit = format!("X-Repo-Commit: {COMMIT}\r\n");
    if name.ends_with(".bin") {
        let sha = hexadecimal(&sha2::Sha256::digest(bytes));
        let headers = format!(
            "{commit}X-Linked-Etag: \"{sha}\"\r\nX-Linked-Size: {}\r\nLocation: http://localhost:{storage_port}/blob/{name}\r\n",
            bytes.len()
        );
        reply(stream, 302, &headers, b"", None);
    } else {
        let blob = [format!("blob {}\0", bytes.len()).as_bytes(), bytes].concat();
        let id = hexadecimal(&sha1::Sha1::digest(&blob));
        let name = name.to_string();
        send_file(stream, request, &name, behavior, &format!("{commit}ETag: W/\"{id}\"\r\n"));
    }
}

fn send_file(stream: &mut TcpStream, request: &Request, name: &str, behavior: &mut Behavior, headers: &str) {
    let mut bytes = behavior.files[name].clone();
    let total = bytes.len();
    if behavior.corrupt {
        bytes.iter_mut().for_each(|byte| *byte ^= 1);
    }
    let asked = request.range.as_deref().filter(|_| !behavior.ignores_ranges);
    let only_metadata = request.range.as_deref() == Some("bytes=0-0");
    let cut = if only_metadata { None } else { behavior.cuts.pop_front() };
    let Some((from, to)) = asked.and_then(|range| range.strip_prefix("bytes=")?.split_once('-')) else {
        return reply(stream, 200, headers, &bytes, cut);
    };
    let from: usize = from.parse().unwrap();
    let to = to.parse().map_or(total, |to: usize| to + 1);
    if from >= total {
        return reply(stream, 416, &format!("{headers}Content-Range: bytes */{total}\r\n"), b"", None);
    }
    let headers = format!("{headers}Content-Range: bytes {from}-{}/{total}\r\n", to - 1);
    reply(stream, 206, &headers, &bytes[from..to], cut);
}

fn reply(stream: &mut TcpStream, status: u16, headers: &str, body: &[u8], cut: Option<usize>) {
    let head = format!(
        "HTTP/1.1 {status} Answer\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let sent = cut.map_or(body, |cut| &body[..cut.min(body.len())]);
    // The client may hang up early, once it has seen enough.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(sent));
}

pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
