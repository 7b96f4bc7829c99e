//! What one attention pass computes, traced by poisoning its inputs.

use oss_kernels::{Document, Flash};
use oss_train::model::fill_normal;
use tch::{Device, Kind, Tensor};

use crate::check;
use crate::svg::{Scale, Svg};

const F32: (Kind, Device) = (Kind::Float, Device::Cpu);

/// As in gpt-oss: eight query heads share a key/value head, and sliding layers see 128 keys.
const GROUP: i64 = 8;
const WINDOW: i64 = 128;
const LENGTH: i64 = 512;
const DIM: i64 = 8;

/// Reproducible samples from a normal distribution.
fn normal(name: &str, std: f64, shape: &[i64]) -> Tensor {
    let mut numbers = vec![0.0; shape.iter().product::<i64>() as usize];
    fill_normal(1, name, std, 0, &mut numbers);
    Tensor::from_slice(&numbers).view(shape)
}

/// For each query, the range (first, last + 1) of the keys for which `poisoned` (bool `[keys, queries]`) is true.
fn ranges(poisoned: &Tensor) -> Vec<(i64, i64)> {
    let (keys, queries) = poisoned.size2().unwrap();
    let flags = Vec::<bool>::try_from(poisoned.flatten(0, -1)).unwrap();
    (0..queries)
        .map(|query| {
            let hit = |key: &i64| flags[(key * queries + query) as usize];
            let first = (0..keys).find(hit).unwrap();
            let end = (0..keys).rev().find(hit).unwrap() + 1;
            assert!((first..end).all(|key| hit(&key)), "the keys must be contiguous");
            (first, end)
        })
        .collect()
}

/// For each query of the real kernel, the keys that it sees, and those for which it computes a score.
///
/// Row i of the batch has a NaN in key i. Its score poisons the softmax of exactly the queries that see key i. A NaN in
/// value i reaches every query whose block is multiplied by it, masked or not, since 0 times NaN is NaN.
fn probe(window: Option<i64>, lengths: &[i64]) -> [Vec<(i64, i64)>; 2] {
    let q = normal("q", 1.0, &[1, LENGTH, GROUP, DIM]).expand([LENGTH, -1, -1, -1], false).contiguous();
    let clean = || normal("k", 1.0, &[1, LENGTH, 1, DIM]).expand([LENGTH, -1, -1, -1], false).contiguous();
    let poisoned = || {
        let tensor = clean();
        let mut diagonal = tensor.select(2, 0).diagonal(0, 0, 1); // [C, T]
        let _ = diagonal.fill_(f64::NAN);
        tensor
    };
    let documents: Vec<Document> = (0..LENGTH as usize)
        .flat_map(|row| {
            lengths.iter().scan(0, move |end, len| {
                let start = *end;
                *end += *len as usize;
                Some(Document { row, tokens: start..*end })
            })
        })
        .collect();
    let sinks = Tensor::zeros([GROUP], F32);
    let run = |k: &Tensor, v: &Tensor| {
        Flash { q: &q, k, v, sinks: &sinks, documents: &documents, window }.forward()
    };
    let logsumexp = run(&poisoned(), &clean()).1; // [B, T, H]
    let output = run(&clean(), &poisoned()).0; // [B, T, H, C]
    [ranges(&logsumexp.select(2, 0).isnan()), ranges(&output.select(3, 0).select(2, 0).isnan())]
}

#[test]
fn the_scores_that_a_pass_computes() {
    let side = 336.0;
    let scale = side / LENGTH as f64;
    let mut svg = Svg::new(830.0, 888.0, "Scores that the attention kernel computes, by mask");
    let documents = [150, 90, 272];
    let panels: [(&str, Option<i64>, &[i64]); 4] = [
        ("Full layer, one document", None, &[LENGTH]),
        ("Full layer, three documents", None, &documents),
        ("Sliding layer, one document", Some(WINDOW), &[LENGTH]),
        ("Sliding layer, three documents", Some(WINDOW), &documents),
    ];
    for (index, (title, window, lengths)) in panels.into_iter().enumerate() {
        let (left, top) = (60.0 + 390.0 * (index % 2) as f64, 62.0 + 412.0 * (index / 2) as f64);
        let [seen, computed] = probe(window, lengths);
        let mut start = 0;
        for len in lengths {
            for query in start..start + len {
                let first = window.map_or(start, |window| start.max(query - window + 1));
                assert_eq!(seen[query as usize], (first, query + 1), "{title}: query {query}");
            }
            start += len;
        }
        let area = |ranges: &[(i64, i64)]| ranges.iter().map(|(first, end)| end - first).sum::<i64>();
        assert!(area(&computed) >= area(&seen) && area(&computed) < LENGTH * LENGTH);

        svg.text("h", left, top - 24.0, title);
        let share = |ranges: &[(i64, i64)]| 100.0 * area(ranges) as f64 / (LENGTH * LENGTH) as f64;
        let words = format!("{:.1} % of all pairs computed, {:.1} % visible", share(&computed), share(&seen));
        svg.text("small dim", left, top - 8.0, &words);
        svg.rect("none", [left, top, side, side]);
        // All queries of a block have the same range of keys.
        let mut query = 0;
        for block in computed.chunk_by(|a, b| a == b) {
            let (first, end) = block[0];
            let (y, height) = (top + query as f64 * scale, block.len() as f64 * scale);
            svg.rect("s1 soft", [left + first as f64 * scale, y, (end - first) as f64 * scale, height]);
            query += block.len();
        }
        let mut start = 0;
        for len in lengths {
            let rows = start..start + *len as usize;
            let corner = |query: usize, key: i64| (left + key as f64 * scale, top + query as f64 * scale);
            // Through the corners of the steps, which are smaller than a pixel.
            let mut outline = vec![corner(rows.start, seen[rows.start].0)];
            outline.extend(rows.clone().map(|query| corner(query + 1, seen[query].1)));
            outline.extend(rows.clone().rev().map(|query| corner(query + 1, seen[query].0)));
            svg.area("s0", &outline);
            start += *len as usize;
            if start < LENGTH as usize {
                let edge = start as f64 * scale;
                svg.line("mark", (left + edge, top), (left + edge, top + side));
                svg.line("mark", (left, top + edge), (left + side, top + edge));
            }
        }
        svg.text("small dim mid", left + side / 2.0, top + side + 16.0, "keys: 0 to 511");
        svg.text("small dim end", left - 6.0, top + 10.0, "query 0");
        svg.text("small dim end", left - 6.0, top + side - 2.0, "511");
    }
    let x = svg.key("s0", 60.0, 858.0, "visible to the query");
    let x = svg.key("s1 soft", x, 858.0, "computed with its block, then masked");
    svg.key("none", x, 858.0, "never touched");
    svg.text(
        "small dim",
        60.0,
        876.0,
        "Traced with NaNs through the real kernel. 8 query heads per key/value head, as in gpt-oss; window 128; documents \
         of 150, 90 and 272 tokens.",
    );
    check("attention-tiles.svg", &svg.finish());
}

/// Output `[T, C]` and logsumexp `[T]` of one head.
fn one_head(q: &Tensor, k: &Tensor, v: &Tensor, sink: f64, window: Option<i64>) -> (Tensor, Vec<f64>) {
    let shaped = |x: &Tensor| x.unsqueeze(0).unsqueeze(2);
    let tokens = 0..q.size()[0] as usize;
    let (output, logsumexp) = Flash {
        q: &shaped(q),
        k: &shaped(k),
        v: &shaped(v),
        sinks: &Tensor::full([1], sink, F32),
        documents: &[Document { row: 0, tokens }],
        window,
    }
    .forward();
    (output.squeeze(), Vec::try_from(logsumexp.flatten(0, -1).to_kind(Kind::Double)).unwrap())
}

#[test]
fn the_share_of_a_sink() {
    let tokens = 16;
    let [q, k] = ["q", "k"].map(|name| normal(name, 1.3, &[tokens, tokens]));
    // With one-hot values, the output is the row of probabilities.
    let one_hot = Tensor::eye(tokens, F32);
    let mut svg = Svg::new(830.0, 600.0, "Attention probabilities, and the sink's probability");
    let cell = 14.0;
    for (index, (title, sink)) in
        [("No sink", f64::NEG_INFINITY), ("Sink logit 0", 0.0), ("Sink logit 2", 2.0)].into_iter().enumerate()
    {
        let (left, top) = (46.0 + 262.0 * index as f64, 60.0);
        let (output, logsumexp) = one_head(&q, &k, &one_hot, sink, None);
        svg.text("h", left, 30.0, title);
        svg.rect("none", [left + 20.0, top, cell * tokens as f64, cell * tokens as f64]);
        svg.text("small dim", left - 4.0, top - 6.0, "sink");
        svg.text("small dim", left + 24.0, top - 6.0, "keys");
        let mut square = |class: &str, x: f64, y: f64, share: f64| {
            // Area is proportional to probability.
            let side = cell * share.sqrt();
            svg.rect(class, [x + (cell - side) / 2.0, y + (cell - side) / 2.0, side, side]);
        };
        for query in 0..tokens {
            let y = top + cell * query as f64;
            let row = Vec::<f64>::try_from(output.get(query).to_kind(Kind::Double)).unwrap();
            let of_sink = (sink - logsumexp[query as usize]).exp();
            assert!((row.iter().sum::<f64>() + of_sink - 1.0).abs() < 1e-5, "row {query} of {title}");
            for (key, share) in row.iter().enumerate().take(query as usize + 1) {
                square("s0", left + 20.0 + cell * key as f64, y, *share);
            }
            if of_sink > 0.0 {
                square("s3", left, y, of_sink);
            }
        }
    }
    svg.text(
        "small dim",
        46.0,
        304.0,
        "Area is probability, one row per query. Every row sums to 1 with its sink. The real kernel, values one-hot.",
    );

    let (left, right, top, bottom) = (96.0, 640.0, 360.0, 540.0);
    let length = 512;
    let x = Scale { values: (1.0, length as f64), pixels: (left, right), log: true };
    let y = Scale { values: (0.001, 1.0), pixels: (bottom, top), log: true };
    svg.text("h", 46.0, 340.0, "The sink's probability");
    for (tick, words) in [(1.0, "100 %"), (0.1, "10 %"), (0.01, "1 %"), (0.001, "0.1 %")] {
        svg.line("grid", (left, y.at(tick)), (right, y.at(tick)));
        svg.text("end small dim", left - 8.0, y.at(tick) + 4.0, words);
    }
    for tick in [1.0, 4.0, 16.0, 64.0, 128.0, 512.0] {
        svg.text("mid small dim", x.at(tick), bottom + 16.0, &format!("{tick}"));
    }
    svg.text("mid small dim", (left + right) / 2.0, bottom + 34.0, "keys so far");
    svg.line("mark", (x.at(WINDOW as f64), top), (x.at(WINDOW as f64), bottom));
    // One query per position: its logsumexp is that of the keys so far.
    let q = normal("query", 1.0, &[1, DIM]).expand([length, -1], false).contiguous();
    let [k, v] = ["keys", "values"].map(|name| normal(name, 1.0, &[length, DIM]));
    for (color, sink) in [("l0", 0.0), ("l2", 2.0), ("l3", 4.0)] {
        let mut ends = Vec::new();
        for (window, dash) in [(None, ""), (Some(WINDOW), " dash")] {
            let (_, logsumexp) = one_head(&q, &k, &v, sink, window);
            let share = |index: usize| (sink - logsumexp[index]).exp();
            let points: Vec<(f64, f64)> = (0..length as usize)
                .filter(|index| *index < 32 || index % 8 == 7)
                .map(|index| (x.at((index + 1) as f64), y.at(share(index))))
                .collect();
            ends.push(points[points.len() - 1].1);
            svg.path(&format!("line {color}{dash}"), &points);
        }
        assert!(ends[1] < ends[0], "with a window, the sink keeps more probability");
        svg.text("b", right + 10.0, (ends[0] + ends[1]) / 2.0 + 4.0, &format!("sink logit {sink}"));
    }
    svg.text("small dim", right + 10.0, top + 6.0, "solid: full layer");
    svg.text("small dim", right + 10.0, top + 22.0, "dashed: window of 128");
    check("attention-sinks.svg", &svg.finish());
}
