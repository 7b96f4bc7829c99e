//! The layers of files: an experiment file and, beneath it, the files that it extends.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    document::{self, Data, Node, Place, Source, Table},
    errors::Problem,
    foreign,
    sweep::{self, Swept},
    validate::Report,
};

/// One layer: a file, the environment or the command line.
#[derive(Debug)]
pub(super) struct Layer {
    /// Unique among the layers; displayed to users, and used as the name of the figment provider.
    pub name: String,
    pub root: Table,
    /// The directory that relative paths in this layer start from.
    pub base: PathBuf,
}

/// Reads `file` and everything it extends: the layers, weakest first, with their valid part. A file that several others
/// extend is a single layer, beneath all of them.
pub(super) fn of_file(file: &Path, report: &mut Report) -> Files {
    let mut reader = Reader::new(report);
    let source = reader.read(file, None);
    Files { layers: reader.layers, source, swept: reader.swept }
}

/// The contents of a file and of the files beneath it.
pub(super) struct Files {
    /// Weakest first.
    pub layers: Vec<Layer>,
    /// The file named by the user.
    pub source: Option<Arc<Source>>,
    /// Its `[sweep]`.
    pub swept: Option<Swept>,
}

/// The single layer of a text that is not a file; `extends` is relative to `base`.
pub(super) fn of_text(
    name: &Path,
    text: String,
    base: &Path,
    report: &mut Report,
) -> (Vec<Layer>, Arc<Source>) {
    let mut reader = Reader::new(report);
    let source = reader.parse(name, text, base, base);
    (reader.layers, source)
}

struct Reader<'a> {
    report: &'a mut Report,
    /// Number of files read, to order the problems.
    sources: usize,
    /// The files currently being read, each extended by the one before it.
    open: Vec<PathBuf>,
    /// The files that have been read, with everything they extend.
    done: Vec<PathBuf>,
    layers: Vec<Layer>,
    swept: Option<Swept>,
}

impl<'a> Reader<'a> {
    fn new(report: &'a mut Report) -> Self {
        Self { report, sources: 0, open: Vec::new(), done: Vec::new(), layers: Vec::new(), swept: None }
    }

    /// Reads a file, unless it has been read: its layers are then already beneath those to come.
    fn read(&mut self, file: &Path, named_at: Option<&Place>) -> Option<Arc<Source>> {
        let problem = |message: String| match named_at {
            Some(place) => Problem::new(message, place.clone()),
            None => Problem::without_place(message),
        };
        let identity = match file.canonicalize() {
            Ok(identity) => identity,
            Err(error) => {
                self.fail(problem(unreadable(file, &error)).help(match named_at {
                    Some(_) => "paths in `extends` are relative to the file that contains it",
                    None => "give the path of an experiment file, such as experiments/quickstart.toml",
                }));
                return None;
            }
        };
        if self.open.contains(&identity) {
            let chain = self.open.iter().skip_while(|open| **open != identity);
            let names = chain.chain([&identity]).map(|path| path.display().to_string()).collect::<Vec<_>>();
            let message = format!("a file cannot extend itself: {}", names.join(" -> "));
            self.fail(problem(message).help("remove one of these files from `extends`"));
            return None;
        }
        if self.done.contains(&identity) {
            return None;
        }
        let text = match fs::read(&identity).map(String::from_utf8) {
            Ok(Ok(text)) => text,
            Ok(Err(error)) => {
                let valid = error.utf8_error().valid_up_to();
                let line = error.as_bytes()[..valid].iter().filter(|byte| **byte == b'\n').count() + 1;
                let message = format!("{}:{line}: byte {valid} is not UTF-8", file.display());
                self.fail(problem(message).help("save the file as UTF-8"));
                return None;
            }
            Err(error) => {
                self.fail(problem(unreadable(file, &error)).help("check the path and its permissions"));
                return None;
            }
        };
        let base = identity.parent().map_or_else(|| PathBuf::from("/"), Path::to_owned);
        self.open.push(identity);
        let source = self.parse(file, text, &base, &shown_base(file, &base));
        self.done.extend(self.open.pop());
        Some(source)
    }

    /// Adds the layers of a text, after those it extends. `base` and `shown` are the same directory; messages name the
    /// files it extends as `shown` does.
    fn parse(&mut self, name: &Path, text: String, base: &Path, shown: &Path) -> Arc<Source> {
        let source = document::file_source(name, text, self.sources);
        self.sources += 1;
        let before = self.report.problems.len();
        let mut root = document::parse_file(&source, &mut self.report.problems);
        if self.report.problems.len() > before {
            if let Some(format) = foreign::format(name, &source.text) {
                self.report.problems.truncate(before);
                let message = format!("{} is {format}; experiments are TOML", name.display());
                let first = Place {
                    span: 0..source.text.lines().next().map_or(0, str::len),
                    source: Arc::clone(&source),
                };
                let help = "write [train] for a section, and steps = 1000 for a value in it; `oss-run init NAME` \
                            writes an example";
                self.report.problems.push(Problem::new(message, first).help(help));
            }
            // A half-parsed file says nothing about the other half.
            self.report.invalidate_all();
            return source;
        }
        for (parent, place) in self.take_extends(&mut root) {
            self.read(&shown.join(parent), Some(&place));
        }
        self.take_sweep(base, shown, &mut root);
        let root = self.report.conforming(root);
        self.layers.push(Layer { name: name.display().to_string(), root, base: base.to_owned() });
        source
    }

    /// Removes `[sweep]` from the top-level table and reads its base file.
    fn take_sweep(&mut self, base: &Path, shown: &Path, root: &mut Table) {
        let Some(node) = root.remove("sweep") else { return };
        // A text that is not a file, such as a manifest's, has no layers beneath it.
        if self.open.len() != 1 {
            let problem =
                Problem::new("only the file named on the command line can contain `[sweep]`", node.key);
            self.report.problems.push(problem.help("remove [sweep] from this file, or run this file"));
            return;
        }
        if let Data::Table(table) = &node.data
            && let Some(Node { data: Data::Text(start), place, .. }) = table.get("base")
        {
            self.read(&shown.join(start), Some(&place.clone()));
        }
        self.swept = sweep::read(node, base.to_owned(), self.report);
    }

    /// Removes `extends` from the top-level table and returns the files it names.
    fn take_extends(&mut self, root: &mut Table) -> Vec<(String, Place)> {
        let Some(node) = root.remove("extends") else { return Vec::new() };
        let mut names = Vec::new();
        let items = match node.data {
            Data::List(items) => items,
            _ => vec![node],
        };
        for Node { place, data, .. } in items {
            match data {
                Data::Text(name) => names.push((name, place)),
                other => {
                    let message = format!(
                        "`extends` must be a file name or a list of file names, not {}",
                        other.words()
                    );
                    let help = "write extends = \"base.toml\" or extends = [\"base.toml\", \"other.toml\"]";
                    self.fail(Problem::new(message, place).help(help));
                }
            }
        }
        names
    }

    /// A layer that cannot be read makes every value uncertain.
    fn fail(&mut self, problem: Problem) {
        self.report.problems.push(problem);
        self.report.invalidate_all();
    }
}

/// The directory of `file` as the user wrote it, or `base` if that is another one because `file` is a symbolic link:
/// everything that a file names starts from the directory of the file itself.
fn shown_base(file: &Path, base: &Path) -> PathBuf {
    let written = file.parent().unwrap_or(Path::new(""));
    let absolute = Path::new(".").join(written).canonicalize();
    if absolute.is_ok_and(|absolute| absolute == base) { written.to_owned() } else { base.to_owned() }
}

fn unreadable(file: &Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => format!("no experiment file {}", file.display()),
        _ => format!("cannot read {}: {error}", file.display()),
    }
}
