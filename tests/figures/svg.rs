//! A small SVG writer: shapes with classes, a style sheet for light and dark mode, and axes.

use std::fmt::Write as _;

/// Colors come only from classes, so that dark mode can change them. `sN` fills with series color N, `lN` draws a line
/// in it.
const STYLE: &str = "\
text{font:12px system-ui,-apple-system,'Segoe UI','DejaVu Sans',sans-serif;fill:#1f2328}\
.page{fill:#fff}.b{font-weight:600}.h{font-size:14px;font-weight:600}.dim{fill:#59636e}.small{font-size:10.5px}\
.on{fill:#fff;font-size:10.5px}.mid{text-anchor:middle}.end{text-anchor:end}\
.grid{stroke:#d1d9e0;stroke-width:1;fill:none}.axis{stroke:#818b98;stroke-width:1;fill:none}\
.mark{stroke:#818b98;stroke-width:1;stroke-dasharray:4 3;fill:none}\
.line{fill:none;stroke-width:2;stroke-linejoin:round}.thin{stroke-width:1.2}.wide{stroke-width:6;stroke-opacity:.35}\
.dash{stroke-dasharray:6 4}.faint{fill-opacity:.22}.soft{fill-opacity:.55}.none{fill:#818b98;fill-opacity:.16}\
.s0{fill:#2f6fd0}.s1{fill:#d9730d}.s2{fill:#1a8a5f}.s3{fill:#b5408f}.s4{fill:#7a5af0}.s5{fill:#8a7340}\
.l0{stroke:#2f6fd0}.l1{stroke:#d9730d}.l2{stroke:#1a8a5f}.l3{stroke:#b5408f}.l4{stroke:#7a5af0}.l5{stroke:#8a7340}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.page{fill:#0d1117}.dim{fill:#9198a1}.on{fill:#fff}\
.grid{stroke:#2f353d}.axis,.mark{stroke:#656c76}\
.s0{fill:#4f8ff0}.s1{fill:#e0883a}.s2{fill:#2ea876}.s3{fill:#d062ad}.s4{fill:#9580ff}.s5{fill:#b09a62}\
.l0{stroke:#4f8ff0}.l1{stroke:#e0883a}.l2{stroke:#2ea876}.l3{stroke:#d062ad}.l4{stroke:#9580ff}.l5{stroke:#b09a62}}";

/// A drawing in pixels, with (0, 0) at the top left.
pub struct Svg {
    body: String,
    width: f64,
    height: f64,
    label: String,
}

impl Svg {
    /// An empty page; screen readers read `label`.
    pub fn new(width: f64, height: f64, label: &str) -> Self {
        Self { body: String::new(), width, height, label: escaped(label) }
    }

    fn add(&mut self, element: std::fmt::Arguments<'_>) {
        writeln!(self.body, "{element}").unwrap();
    }

    pub fn rect(&mut self, class: &str, [x, y, width, height]: [f64; 4]) {
        let [x, y, width, height] = [x, y, width, height].map(short);
        self.add(format_args!(
            r#"<rect class="{class}" x="{x}" y="{y}" width="{width}" height="{height}"/>"#
        ));
    }

    pub fn text(&mut self, class: &str, x: f64, y: f64, words: &str) {
        let (x, y, words) = (short(x), short(y), escaped(words));
        self.add(format_args!(r#"<text class="{class}" x="{x}" y="{y}">{words}</text>"#));
    }

    pub fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        self.path(class, &[from, to]);
    }

    /// A polyline through `points`.
    pub fn path(&mut self, class: &str, points: &[(f64, f64)]) {
        let d = outline(points);
        self.add(format_args!(r#"<path class="{class}" d="{d}"/>"#));
    }

    /// A filled polygon with the corners `points`.
    pub fn area(&mut self, class: &str, points: &[(f64, f64)]) {
        let d = outline(points);
        self.add(format_args!(r#"<path class="{class}" d="{d}Z"/>"#));
    }

    pub fn dot(&mut self, class: &str, (x, y): (f64, f64), radius: f64) {
        let [x, y, radius] = [x, y, radius].map(short);
        self.add(format_args!(r#"<circle class="{class}" cx="{x}" cy="{y}" r="{radius}"/>"#));
    }

    /// A legend entry; returns the position of the next one.
    pub fn key(&mut self, class: &str, x: f64, y: f64, words: &str) -> f64 {
        self.rect(class, [x, y - 9.0, 12.0, 10.0]);
        self.text("small", x + 17.0, y, words);
        x + 35.0 + 6.0 * words.chars().count() as f64
    }

    pub fn finish(self) -> String {
        let Self { body, width, height, label } = self;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
             aria-label=\"{label}\">\n<style>{STYLE}</style>\n<rect class=\"page\" width=\"{width}\" \
             height=\"{height}\" rx=\"8\"/>\n{body}</svg>\n"
        )
    }
}

/// Maps values to pixels.
#[derive(Clone, Copy)]
pub struct Scale {
    pub values: (f64, f64),
    pub pixels: (f64, f64),
    pub log: bool,
}

impl Scale {
    pub fn at(&self, value: f64) -> f64 {
        let on = |value: f64| if self.log { value.log10() } else { value };
        let part = (on(value) - on(self.values.0)) / (on(self.values.1) - on(self.values.0));
        self.pixels.0 + part * (self.pixels.1 - self.pixels.0)
    }
}

fn outline(points: &[(f64, f64)]) -> String {
    let mut corners: Vec<(f64, f64)> = Vec::new();
    for point in points {
        // Keeps only the end points of collinear points.
        if let [.., a, b] = corners[..]
            && ((b.0 - a.0) * (point.1 - b.1) - (b.1 - a.1) * (point.0 - b.0)).abs() < 1e-6
            && (b.0 - a.0) * (point.0 - b.0) + (b.1 - a.1) * (point.1 - b.1) >= 0.0
        {
            corners.pop();
        }
        corners.push(*point);
    }
    let mut d = String::new();
    for (index, (x, y)) in corners.iter().enumerate() {
        write!(d, "{}{} {}", if index == 0 { "M" } else { "L" }, short(*x), short(*y)).unwrap();
    }
    d
}

/// Rounded to a tenth of a pixel, without a trailing `.0`.
fn short(place: f64) -> String {
    let text = format!("{place:.1}");
    match text.strip_suffix(".0").unwrap_or(&text) {
        "-0" => "0".to_owned(),
        text => text.to_owned(),
    }
}

fn escaped(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
