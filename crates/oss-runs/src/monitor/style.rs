//! Colors of messages on stderr.

use std::borrow::Cow;

use console::Style;

/// Whether messages on stderr are colored: it is a terminal, and `NO_COLOR` is not set.
pub fn colors_enabled() -> bool {
    console::colors_enabled_stderr()
}

/// `text` with the first word of errors, warnings, causes and hints colored, if colors are enabled.
pub fn colored(text: &str) -> Cow<'_, str> {
    if colors_enabled() { paint(text).into() } else { text.into() }
}

fn paint(text: &str) -> String {
    let style = Style::new().force_styling(true);
    let prefixes = [
        ("error:", style.clone().red().bold()),
        ("warning:", style.clone().yellow().bold()),
        ("hint:", style.clone().cyan()),
        ("  caused by:", style.dim()),
    ];
    let line = |line: &str| {
        let found =
            prefixes.iter().find_map(|(prefix, style)| Some((style, *prefix, line.strip_prefix(prefix)?)));
        found.map_or_else(
            || line.to_owned(),
            |(style, prefix, rest)| format!("{}{rest}", style.apply_to(prefix)),
        )
    };
    text.split_inclusive('\n').map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_of_lines_are_colored() {
        let text = paint("warning: no error: here\nhint: do\n");
        assert_eq!(
            text,
            "\u{1b}[33m\u{1b}[1mwarning:\u{1b}[0m no error: here\n\u{1b}[36mhint:\u{1b}[0m do\n"
        );
    }
}
