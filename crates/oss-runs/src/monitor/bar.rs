//! The line of a progress bar, laid out for the width of the terminal.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use console::{Term, measure_text_width, truncate_str};
use indicatif::{HumanDuration, ProgressState, ProgressStyle};

use super::progress::{Amount, Count, Rate, Unit};

/// The text after the numbers, which changes while the bar is drawn.
#[derive(Clone, Debug, Default)]
pub(super) struct Message(Arc<Mutex<String>>);

impl Message {
    pub(super) fn set(&self, text: String) {
        *self.locked() = text;
    }

    pub(super) fn get(&self) -> String {
        self.locked().clone()
    }

    fn locked(&self) -> MutexGuard<'_, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The style of the bar named `label`: the bar takes whatever width the texts leave.
pub(super) fn style(label: &str, unit: Unit, total: Option<u64>, message: Message) -> ProgressStyle {
    let status = move |state: &ProgressState| (Numbers::of(state, unit), message.get());
    layout(label, total.is_some(), || usize::from(Term::stderr().size().1), status)
}

/// Width of everything but the texts: the spaces between them and a short bar, or a spinner.
const FRAME: usize = 6;

fn layout(
    label: &str,
    has_total: bool,
    width: impl Fn() -> usize + Copy + Send + Sync + 'static,
    status: impl Fn(&ProgressState) -> (Numbers, String) + Clone + Send + Sync + 'static,
) -> ProgressStyle {
    let template = if has_total { "{label} {wide_bar} {status}" } else { "{spinner} {label} {status}" };
    let label = label.to_owned();
    let texts = move |state: &ProgressState| {
        let (numbers, message) = status(state);
        numbers.texts(&label, &message, width().saturating_sub(FRAME))
    };
    let key = |part: fn((String, String)) -> String| {
        let texts = texts.clone();
        move |state: &ProgressState, out: &mut dyn fmt::Write| {
            // A terminal that accepts no output is no reason to stop.
            let _ = out.write_str(&part(texts(state)));
        }
    };
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸ ")
        .with_key("label", key(|texts| texts.0))
        .with_key("status", key(|texts| texts.1))
}

/// How far the work is: `480/500 steps`, `40.0/s` and `2s left`.
#[derive(Clone)]
struct Numbers {
    done: String,
    rate: String,
    time: String,
}

impl Numbers {
    fn of(state: &ProgressState, unit: Unit) -> Self {
        let done = Count(state.pos(), unit);
        let (done, time) = match state.len() {
            Some(total) => {
                (format!("{done}/{}", Amount(total, unit)), format!("{:#} left", HumanDuration(state.eta())))
            }
            None => (done.to_string(), format!("{:#}", HumanDuration(state.elapsed()))),
        };
        Self { done, rate: Rate(state.per_sec(), unit).to_string(), time }
    }

    /// The label and the status that fit into `width`: the numbers, and as many parts of the message as there is space
    /// for. In a narrow terminal, the rate is left out and the label, such as the name of a file, ends in an ellipsis.
    fn texts(&self, label: &str, message: &str, width: usize) -> (String, String) {
        let Self { done, rate, time } = self;
        let (mut status, least) = (format!("{done}, {rate}, {time}"), format!("{done}, {time}"));
        let left = width.saturating_sub(measure_text_width(&least)).max(width / 4);
        let label = truncate_str(label, left, "…").into_owned();
        let width = width.saturating_sub(measure_text_width(&label));
        if measure_text_width(&status) > width {
            status = least;
        }
        let mut separator = "  ";
        for part in message.split(", ").filter(|part| !part.is_empty()) {
            if measure_text_width(&status) + separator.len() + measure_text_width(part) > width {
                break;
            }
            status.push_str(separator);
            status.push_str(part);
            separator = ", ";
        }
        (label, truncate_str(&status, width, "…").into_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use indicatif::{ProgressBar, ProgressDrawTarget, TermLike};

    use super::*;

    /// A terminal of one line.
    #[derive(Clone, Debug)]
    struct Line {
        width: u16,
        text: Message,
    }

    impl TermLike for Line {
        fn width(&self) -> u16 {
            self.width
        }

        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(text)
        }

        fn write_str(&self, text: &str) -> io::Result<()> {
            self.text.set(self.text.get() + text);
            Ok(())
        }

        fn clear_line(&self) -> io::Result<()> {
            self.text.set(String::new());
            Ok(())
        }

        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The bar in a terminal that is `WIDTH` columns wide.
    fn drawn<const WIDTH: usize>(
        label: &str,
        done: &str,
        total: Option<u64>,
        message: &'static str,
    ) -> String {
        let term = Line { width: WIDTH as u16, text: Message::default() };
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::term_like(Box::new(term.clone())));
        let numbers = Numbers { done: done.into(), rate: "40.0/s".into(), time: "2s left".into() };
        let status = move |_: &ProgressState| (numbers.clone(), message.to_owned());
        bar.set_style(layout(label, total.is_some(), || WIDTH, status));
        bar.set_position(320);
        bar.tick();
        let line = term.text.get();
        assert!(measure_text_width(&line) <= WIDTH, "{line}");
        line.trim_end().to_owned()
    }

    fn at_each_width(label: &str, done: &str, total: Option<u64>, message: &'static str) -> String {
        [
            drawn::<40>(label, done, total, message),
            drawn::<60>(label, done, total, message),
            drawn::<80>(label, done, total, message),
            drawn::<120>(label, done, total, message),
            drawn::<200>(label, done, total, message),
        ]
        .join("\n")
    }

    #[test]
    fn a_bar_fits_into_one_line_at_every_width() {
        insta::assert_snapshot!(
            "training",
            at_each_width("train", "320/500 steps", Some(500), "loss 2.3150, 12345 tokens/s")
        );
        let label = "downloading roneneldan/TinyStories/data/train-00000-of-00004.parquet";
        insta::assert_snapshot!("download", at_each_width(label, "320.00 MiB/500.00 MiB", Some(500), ""));
        let label = "training the tokenizer (32,768 tokens)";
        insta::assert_snapshot!("no_total", at_each_width(label, "320", None, ""));
    }
}
