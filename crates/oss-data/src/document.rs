//! The unit of text: a document.

/// One document of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The text, as it was read.
    pub text: String,
    /// Where it came from, for messages: `file:line`, `file row N`, or a generated story's number.
    pub place: String,
}
