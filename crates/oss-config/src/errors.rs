//! All problems of an experiment at once, each with its location.

use crate::error::{UserError, user_errors};
use std::{fmt, iter};

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, Severity, SourceCode,
};

use super::document::{Place, SourceKind};

/// One problem: what is wrong, where, and how to fix it.
#[derive(Clone, Debug)]
pub struct Problem {
    pub(super) message: String,
    pub(super) help: Option<String>,
    label: String,
    place: Option<Place>,
}

impl Problem {
    pub(super) fn new(message: impl Into<String>, place: Place) -> Self {
        Self { place: Some(place), ..Self::without_place(message) }
    }

    /// A problem without a snippet, such as a file that cannot be read.
    pub(super) fn without_place(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, label: String::new(), place: None }
    }

    pub(super) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// What is wrong, in one line.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// How to fix it.
    pub fn fix(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// The file, variable or argument, with line and column (in characters), both 1-based.
    pub fn location(&self) -> Option<(String, usize, usize)> {
        let place = self.place.as_ref()?;
        let (line, column) = place.line_and_column();
        Some((place.source.name(), line, column))
    }

    fn position(&self) -> (usize, usize) {
        self.place.as_ref().map_or((0, 0), |place| (place.source.order, place.span.start))
    }
}

/// `file:line:column: message; fix`. Variables and arguments are shown by name alone.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            let name = place.source.name();
            match (&place.source.kind, place.line_and_column()) {
                (SourceKind::File(_), (line, column)) => write!(f, "{name}:{line}:{column}: ")?,
                _ => write!(f, "{name}: ")?,
            }
        }
        f.write_str(&self.message)?;
        self.help.iter().try_for_each(|help| write!(f, "; {help}"))
    }
}

/// Only the message goes above the snippet, which already shows the location.
struct Shown<'a> {
    problem: &'a Problem,
    snippet: Option<NamedSource<String>>,
}

impl<'a> Shown<'a> {
    fn new(problem: &'a Problem) -> Self {
        let source = problem.place.as_ref().map(|place| &place.source);
        let snippet = source.map(|source| NamedSource::new(source.name(), source.text.clone()));
        Self { problem, snippet }
    }
}

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.problem, f)
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem.message)
    }
}

impl std::error::Error for Shown<'_> {}

impl Diagnostic for Shown<'_> {
    fn severity(&self) -> Option<Severity> {
        Some(Severity::Error)
    }

    fn help(&self) -> Option<Box<dyn fmt::Display + '_>> {
        self.problem.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.snippet.as_ref().map(|snippet| snippet as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = self.problem.place.as_ref()?.span.clone();
        let label = (!self.problem.label.is_empty()).then(|| self.problem.label.clone());
        Some(Box::new(iter::once(LabeledSpan::new_with_span(label, span))))
    }
}

/// All problems of an experiment.
#[derive(Clone, Debug)]
pub struct ExperimentErrors {
    problems: Vec<Problem>,
}

impl ExperimentErrors {
    /// In reading order: by file, then top to bottom.
    pub(super) fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(Problem::position);
        Self { problems }
    }

    /// All problems in reading order.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// All problems for a terminal of this width, each with its line of source and the offending part underlined.
    pub fn render(&self, color: bool, width: usize) -> String {
        render(&self.problems, color, width)
    }
}

/// One line per problem, each with file, line and column.
impl fmt::Display for ExperimentErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.as_slice() {
            [only] => write!(f, "{only}"),
            many => {
                write!(f, "the experiment has {} problems", many.len())?;
                many.iter().try_for_each(|problem| write!(f, "\n{problem}"))
            }
        }
    }
}

impl From<ExperimentErrors> for UserError {
    fn from(errors: ExperimentErrors) -> Self {
        Self::wrong(errors)
    }
}

user_errors!(ExperimentErrors);

/// Renders problems (or warnings) with their snippets, separated by blank lines.
fn render(problems: &[Problem], color: bool, width: usize) -> String {
    let theme = if color { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let handler = GraphicalReportHandler::new_themed(theme).with_width(width).with_links(false);
    let mut text = String::new();
    for problem in problems {
        let start = text.len();
        if handler.render_report(&mut text, &Shown::new(problem)).is_err() {
            // Show the message even if its span cannot be shown.
            text.truncate(start);
            text.push_str(&format!("{problem}\n"));
        }
        text.push('\n');
    }
    text
}
