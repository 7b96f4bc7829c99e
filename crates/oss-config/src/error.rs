//! Errors as data: the exit status, the message, and what the user can do about it.
//!
//! [`anyhow::Error`] propagates errors. If the user can do something about an error, one link of its chain is a
//! [`UserError`], which carries the hint as a field. Error enums convert to [`UserError`]. They do not implement
//! [`std::error::Error`] themselves, so that none can enter a chain without its hint ([`user_errors!`] lets `?` convert
//! them). [`ErrorReport`] is a chain in the form in which it is displayed and stored.

use std::error::Error as StdError;
use std::fmt::{self, Debug, Display};

use serde::{Deserialize, Serialize};

/// Work was stopped early by request; nothing failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stopped on request")]
pub struct Stopped;

/// How a process of this program ends, as an exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Success.
    Done,
    /// The run failed.
    Failed,
    /// The experiment or the command line is invalid.
    Wrong,
    /// Stopped by request; the run can be resumed.
    Stopped,
}

impl Status {
    const ALL: [Self; 4] = [Self::Done, Self::Failed, Self::Wrong, Self::Stopped];

    /// The exit status for the shell.
    pub const fn code(self) -> i32 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Wrong => 2,
            // EX_TEMPFAIL of sysexits.h, which batch systems treat as "try again".
            Self::Stopped => 75,
        }
    }

    /// Interprets the exit status of a process of this program; `None` if the program does not use it.
    pub fn from_code(code: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.code() == code)
    }

    /// The exit status for an error.
    pub fn of(error: &anyhow::Error) -> Self {
        let mut status = Self::Failed;
        for cause in error.chain() {
            match cause.downcast_ref::<UserError>() {
                Some(error) if error.status == Self::Stopped => return Self::Stopped,
                Some(error) if error.status == Self::Wrong => status = Self::Wrong,
                _ if cause.is::<Stopped>() => return Self::Stopped,
                _ => {}
            }
        }
        status
    }
}

/// An error that the user can do something about.
#[derive(Debug)]
pub struct UserError {
    status: Status,
    hints: Vec<String>,
    /// The message and its cause.
    error: anyhow::Error,
}

impl UserError {
    /// An error that is not a mistake in the command line or the experiment: exit status 1.
    pub fn failed(message: impl Display + Debug + Send + Sync + 'static) -> Self {
        Self { status: Status::Failed, hints: Vec::new(), error: anyhow::Error::msg(message) }
    }

    /// An error in the experiment or the command line: exit status 2.
    pub fn wrong(message: impl Display + Debug + Send + Sync + 'static) -> Self {
        Self { status: Status::Wrong, ..Self::failed(message) }
    }

    /// Adds a hint: a command, a key to set, a place to look.
    pub fn hint(mut self, hint: impl Display) -> Self {
        self.hints.push(hint.to_string());
        self
    }

    /// Adds a cause.
    pub fn because(self, cause: impl Into<anyhow::Error>) -> Self {
        Self { error: cause.into().context(self.error.to_string()), ..self }
    }

    /// The same error with the exit status of a command-line mistake, 2.
    pub fn as_wrong(self) -> Self {
        Self { status: Status::Wrong, ..self }
    }

    /// The exit status.
    pub fn status(&self) -> Status {
        self.status
    }

    /// The hints, in the order in which they were added.
    pub fn hints(&self) -> &[String] {
        &self.hints
    }

    /// The message as the value it was created from.
    pub fn message_as<M: Display + Debug + Send + Sync + 'static>(&self) -> Option<&M> {
        self.error.downcast_ref()
    }
}

/// The message, without causes and hints.
impl Display for UserError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(&self.error, f)
    }
}

impl StdError for UserError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.error.source()
    }
}

/// Lets `?` convert an error enum, which has `From<_> for UserError`, into an [`anyhow::Error`].
#[macro_export]
macro_rules! user_errors {
    ($($error:ty),+) => {
        $(impl From<$error> for anyhow::Error {
            fn from(error: $error) -> Self {
                $crate::error::UserError::from(error).into()
            }
        })+
    };
}
pub use user_errors;

/// Adds a hint to an error, next to its message:
/// `fs::read(path).with_context(|| format!("cannot read {}", path.display())).hint("check its permissions")`.
pub trait Hint: Sized {
    /// The result with the hint.
    type Hinted;

    /// Adds a hint that is only computed if there is an error.
    fn with_hint<D: Display>(self, hint: impl FnOnce() -> D) -> Self::Hinted;

    /// Adds a hint.
    fn hint(self, hint: impl Display) -> Self::Hinted {
        self.with_hint(|| hint)
    }
}

impl Hint for anyhow::Error {
    type Hinted = Self;

    fn with_hint<D: Display>(self, hint: impl FnOnce() -> D) -> Self {
        let top: &(dyn StdError + 'static) = self.as_ref();
        let known = if top.is::<UserError>() { self.downcast() } else { Err(self) };
        let error = known.unwrap_or_else(|error| {
            // This link will hide the error it wraps, which may carry an exit status.
            UserError { status: Status::of(&error), hints: Vec::new(), error }
        });
        error.hint(hint()).into()
    }
}

impl<T, E: Into<anyhow::Error>> Hint for Result<T, E> {
    type Hinted = anyhow::Result<T>;

    fn with_hint<D: Display>(self, hint: impl FnOnce() -> D) -> anyhow::Result<T> {
        self.map_err(|error| error.into().with_hint(hint))
    }
}

/// An error as it is reported: on the terminal, in a run's manifest, between ranks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReport {
    /// What went wrong.
    pub message: String,
    /// The causes, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    /// Hints, most specific first: the deeper the cause, the more its hint knows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<String>,
}

impl From<&anyhow::Error> for ErrorReport {
    fn from(error: &anyhow::Error) -> Self {
        let (mut messages, mut hints) = (Vec::<String>::new(), Vec::<String>::new());
        for cause in error.chain() {
            let message = cause.to_string();
            // Some error types of other crates include their source in their own message.
            if !messages.last().is_some_and(|above| above.contains(&message)) {
                messages.push(message);
            }
            let new = cause.downcast_ref::<UserError>().map_or(&[][..], UserError::hints);
            hints.extend(new.iter().cloned());
        }
        hints.reverse();
        let message = messages.remove(0);
        Self { message, causes: messages, hints }
    }
}

impl ErrorReport {
    /// The report of an error of any type.
    pub fn of(error: impl Into<anyhow::Error>) -> Self {
        Self::from(&error.into())
    }

    /// The same report with each text transformed, for example to redact secrets.
    pub fn map(&self, change: impl Fn(&str) -> String) -> Self {
        let all = |texts: &[String]| texts.iter().map(|text| change(text)).collect();
        Self { message: change(&self.message), causes: all(&self.causes), hints: all(&self.hints) }
    }

    /// A report from another process, as the cause of an error in this one.
    pub fn into_error(self, message: impl Display + Debug + Send + Sync + 'static) -> UserError {
        let below = self.causes.into_iter().rev();
        let mut texts = below.chain([self.message]);
        let deepest = anyhow::Error::msg(texts.next().unwrap_or_default());
        let cause = texts.fold(deepest, anyhow::Error::context);
        let error = UserError::failed(message).because(cause);
        UserError { hints: self.hints.into_iter().rev().collect(), ..error }
    }

    /// The message and its causes on one line, without hints, for a log or a table cell.
    pub fn summary(&self) -> String {
        let causes = self.causes.iter().map(String::as_str);
        std::iter::once(self.message.as_str()).chain(causes).collect::<Vec<_>>().join(": ")
    }
}

/// The message, then a line for each cause and a line for each hint.
impl Display for ErrorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.causes.iter().try_for_each(|cause| write!(f, "\n  caused by: {cause}"))?;
        self.hints.iter().try_for_each(|hint| write!(f, "\nhint: {hint}"))
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    /// An error enum, as the upper layers define them.
    #[derive(Debug)]
    enum DiskError {
        Full { free: u64 },
    }

    impl From<DiskError> for UserError {
        fn from(error: DiskError) -> Self {
            match error {
                DiskError::Full { free } => {
                    Self::failed(format!("{free} bytes are free")).hint("free some space")
                }
            }
        }
    }

    user_errors!(DiskError);

    fn of(error: &anyhow::Error) -> (Status, ErrorReport) {
        (Status::of(error), ErrorReport::from(error))
    }

    fn report(message: &str, causes: &[&str], hints: &[&str]) -> ErrorReport {
        let all = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        ErrorReport { message: message.to_owned(), causes: all(causes), hints: all(hints) }
    }

    #[test]
    fn each_status_has_its_code() {
        for status in Status::ALL {
            assert_eq!(Status::from_code(status.code()), Some(status));
        }
        assert_eq!(Status::from_code(101), None);
    }

    #[test]
    fn an_enum_of_errors_keeps_its_hint_below_context() {
        let write = || -> anyhow::Result<()> { Err(DiskError::Full { free: 3 })? };
        let error = write().context("cannot write a").hint("try b").context("training failed").unwrap_err();
        let causes = ["cannot write a", "3 bytes are free"];
        let expected = report("training failed", &causes, &["free some space", "try b"]);
        assert_eq!(of(&error), (Status::Failed, expected));
    }

    #[test]
    fn a_hint_does_not_repeat_the_message() {
        let error = anyhow!("no a").hint("make one");
        assert_eq!(of(&error), (Status::Failed, report("no a", &[], &["make one"])));
        let error =
            UserError::failed("cannot write a").hint("free some").because(anyhow!("it is full").context("b"));
        let expected = report("cannot write a", &["b", "it is full"], &["free some"]);
        assert_eq!(of(&error.into()), (Status::Failed, expected));
    }

    #[test]
    fn the_status_is_found_anywhere_in_the_chain() {
        for (error, status) in [
            (anyhow!("x"), Status::Failed),
            (UserError::wrong("x").into(), Status::Wrong),
            (anyhow::Error::from(UserError::wrong("x")).context("above").hint("y"), Status::Wrong),
            (anyhow::Error::from(UserError::wrong("x")).hint("y").context("above"), Status::Wrong),
            (anyhow!(Stopped).context("above"), Status::Stopped),
            (anyhow!(Stopped).hint("start again").context("above"), Status::Stopped),
            (anyhow!(Stopped).context("above").hint("start again"), Status::Stopped),
        ] {
            assert_eq!(Status::of(&error), status, "{error:?}");
        }
    }

    #[test]
    fn a_report_from_another_process_round_trips() {
        let told =
            report("training failed", &["cannot write a", "it is full"], &["free some space", "try b"]);
        let expected = ErrorReport {
            message: "rank 1 failed".into(),
            causes: [vec![told.message.clone()], told.causes.clone()].concat(),
            hints: told.hints.clone(),
        };
        assert_eq!(of(&told.into_error("rank 1 failed").into()), (Status::Failed, expected));
        assert_eq!(ErrorReport::from(&report("x", &[], &[]).into_error("y").into()).summary(), "y: x");
    }

    #[test]
    fn hints_follow_causes() {
        let error =
            anyhow!("no room").context("cannot write a").hint("free some space").context("training failed");
        let (_, told) = of(&error);
        insta::assert_snapshot!(told, @r"
        training failed
          caused by: cannot write a
          caused by: no room
        hint: free some space
        ");
        insta::assert_snapshot!(told.summary(), @"training failed: cannot write a: no room");
    }

    #[test]
    fn a_message_can_be_downcast() {
        #[derive(Debug, PartialEq)]
        struct Seven(u8);
        impl Display for Seven {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "seven is {}", self.0)
            }
        }
        assert_eq!(UserError::wrong(Seven(8)).message_as(), Some(&Seven(8)));
    }
}
