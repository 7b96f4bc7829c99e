//! The cross-entropy of a linear layer over the vocabulary, and its gradients, without materializing all tokens'
//! logits.
//!
//! On the CPU the vocabulary is split into tiles that stay in the cache. The first pass computes a tile's logits,
//! exponentiates them relative to the largest logit so far, and multiplies the exponentials by the tile's rows of the
//! matrix, as in FlashAttention (arXiv:2205.14135): once the normalizer is known, so is the gradient of the rows. The
//! second pass multiplies the saved exponentials by the rows, scaled by each tile's remaining correction. So each logit
//! is computed and exponentiated once, written once and read once. The targets' contribution, `p - 1`, would lose
//! precision where p is rounded near 1, so it is added separately, in f32.
//!
//! On other devices, and for other dtypes, chunks of tokens go through libtorch operations.
//!
//! N tokens, n tokens per chunk, D hidden, V vocabulary, v rows per tile.

use half::bf16;
use tch::{Device, Kind, Tensor};

use super::linear::{accumulate_product, product_into, wide_product};
use oss_kernels::{OnlineSoftmax, Scalar};
use oss_torch::to_vec;

/// Maximum bytes of logits, or of the exponentials that replace them, held at once. Each chunk adds to the whole
/// gradient of the matrix, which on a GPU takes as long as processing a 256 MiB chunk.
pub const fn logits_chunk_bytes(gpu: bool) -> i64 {
    if gpu { 1 << 30 } else { 256 << 20 }
}

/// Bytes of a tile of logits: part of it may stay in each core's L2 cache, all of it in L3.
const TILE_BYTES: i64 = 4 << 20;

/// Scratch memory that the loss reuses: touching fresh pages would cost as much as the arithmetic on them.
#[derive(Debug, Default)]
pub struct LossScratch {
    /// A tile of the matrix in the dtype of the rows, flat.
    weights: Option<Tensor>,
    /// Logits of a tile, flat.
    logits: Option<Tensor>,
    /// Exponentials of a chunk's logits, flat.
    exponentials: Option<Tensor>,
}

/// An uninitialized `[rows, columns]` CPU tensor of `kind`, which reuses `memory` if that is large enough.
fn take(memory: &mut Option<Tensor>, rows: i64, columns: i64, kind: Kind) -> Tensor {
    let len = rows * columns;
    let fits = |tensor: &Tensor| tensor.kind() == kind && tensor.numel() as i64 >= len;
    if !memory.as_ref().is_some_and(fits) {
        *memory = None;
    }
    let flat = memory.get_or_insert_with(|| Tensor::empty([len], (kind, Device::Cpu)));
    flat.narrow(0, 0, len).view([rows, columns])
}

const F32: (Kind, Device) = (Kind::Float, Device::Cpu);

/// Splits `len` into parts of nearly equal size, at most `most` each: (start, length).
fn parts(len: i64, most: i64) -> impl Iterator<Item = (i64, i64)> {
    let most = most.clamp(1, len.max(1));
    // Nearly equal, so that no product is left with only a few rows.
    let count = (len + most - 1) / most;
    (0..count).map(move |i| (i * len / count, (i + 1) * len / count - i * len / count))
}

/// Chunks of the rows `x` whose logits, at `bytes` each, fit in [`logits_chunk_bytes`].
fn chunks(x: &Tensor, vocab: i64, bytes: i64) -> impl Iterator<Item = (i64, i64)> {
    parts(x.size()[0], logits_chunk_bytes(x.device().is_cuda()) / (bytes * vocab))
}

/// Negative log-likelihood of each of `targets` (i64 `[N]`), given the rows `x [N, D]` and `matrix [V, D]`: f32 `[N]`.
pub fn losses(x: &Tensor, targets: &Tensor, matrix: &Tensor) -> Tensor {
    let columns = matrix.transpose(0, 1);
    let parts: Vec<Tensor> = chunks(x, matrix.size()[0], 4)
        .map(|(start, len)| {
            let logits = wide_product(&x.narrow(0, start, len), &columns);
            let target = targets.narrow(0, start, len).unsqueeze(-1);
            logits.logsumexp([-1i64].as_slice(), false) - logits.gather(-1, &target, false).squeeze_dim(-1)
        })
        .collect();
    Tensor::cat(&parts, 0)
}

/// The gradient accumulator of the output matrix, which need not be zeroed first.
#[derive(Debug)]
pub struct MatrixGradient {
    /// `[V, D]`, f32 (f64 for f64).
    pub sum: Tensor,
    /// Whether `sum` holds stale values, which the first gradient overwrites.
    pub is_stale: bool,
}

/// Returns the summed loss as an f64 scalar tensor, and the gradient of that sum times `scale` with respect to `x`. The
/// matrix, which may be f32, is cast to the dtype of `x`; its gradient is accumulated into `grad_matrix`.
pub fn loss_and_gradient(
    x: &Tensor,
    targets: &Tensor,
    matrix: &Tensor,
    scale: f64,
    grad_matrix: &mut MatrixGradient,
    scratch: &mut LossScratch,
) -> (Tensor, Tensor) {
    let mut total = Tensor::zeros([], (Kind::Double, x.device()));
    let grad = x.empty_like();
    let bytes = if oss_kernels::supports(x) { x.kind().elt_size_in_bytes() as i64 } else { 4 };
    for (start, len) in chunks(x, matrix.size()[0], bytes) {
        let (rows, targets) = (x.narrow(0, start, len), targets.narrow(0, start, len));
        let (loss, grad_rows) = match x.kind() {
            Kind::Float if oss_kernels::supports(x) => {
                tiled::<f32>(&rows, &targets, matrix, scale, grad_matrix, scratch)
            }
            Kind::BFloat16 if oss_kernels::supports(x) => {
                tiled::<bf16>(&rows, &targets, matrix, scale, grad_matrix, scratch)
            }
            _ => {
                if grad_matrix.is_stale {
                    let _ = grad_matrix.sum.zero_();
                }
                by_operations(&rows, &targets, matrix, scale, &mut grad_matrix.sum)
            }
        };
        grad_matrix.is_stale = false;
        total += loss;
        grad.narrow(0, start, len).copy_(&grad_rows);
    }
    (total, grad)
}

/// A tile of the matrix, cast to `kind` if it has another dtype; the cast reuses `memory`, sized for `most` rows.
fn cast_tile(tile: &Tensor, kind: Kind, most: i64, memory: &mut Option<Tensor>) -> Tensor {
    if tile.kind() == kind {
        return tile.shallow_clone();
    }
    let mut cast = take(memory, most, tile.size()[1], kind).narrow(0, 0, tile.size()[0]);
    cast.copy_(tile);
    cast
}

fn by_operations(
    rows: &Tensor,
    targets: &Tensor,
    matrix: &Tensor,
    scale: f64,
    grad_matrix: &mut Tensor,
) -> (Tensor, Tensor) {
    let target = targets.unsqueeze(-1); // [n, 1]
    let log_likelihood = wide_product(rows, &matrix.transpose(0, 1)).log_softmax(-1, None::<Kind>); // [n, V]
    let loss = -log_likelihood.gather(-1, &target, false).sum(Kind::Double);
    // The gradient of the summed loss with respect to the logits is softmax minus one-hot; `scale` is applied later, to
    // narrower tensors.
    let mut grad_logits = { log_likelihood }.exp_();
    let minus_one = Tensor::full(target.size(), -1.0, (grad_logits.kind(), rows.device()));
    let grad_logits = grad_logits.scatter_add_(-1, &target, &minus_one).to_kind(rows.kind());
    accumulate_product(grad_matrix, &grad_logits.transpose(0, 1), &(rows * scale));
    (loss, grad_logits.matmul(matrix) * scale)
}

fn tiled<T: Scalar>(
    rows: &Tensor,
    targets: &Tensor,
    matrix: &Tensor,
    scale: f64,
    grad_matrix: &mut MatrixGradient,
    scratch: &mut LossScratch,
) -> (Tensor, Tensor) {
    let (n, vocab) = (rows.size()[0], matrix.size()[0]);
    let tiles: Vec<(i64, i64)> = parts(vocab, TILE_BYTES / (4 * n)).collect();
    let target_of = to_vec::<i64>(&targets.contiguous());
    let mut target_logits = vec![0.0; n as usize];
    let mut softmax = OnlineSoftmax::new(n as usize);
    let mut maxima = Vec::with_capacity(tiles.len());

    let most = tiles.iter().map(|&(_, len)| len).max().unwrap_or(0);
    let logits = take(&mut scratch.logits, most, n, Kind::Float);
    let exponentials = take(&mut scratch.exponentials, vocab, n, rows.kind());
    let columns = rows.transpose(0, 1); // [D, n]
    let mut grad = Tensor::zeros(rows.size(), F32); // relative to the maximum so far
    for &(start, len) in &tiles {
        let (mut logits, mut tile) = (logits.narrow(0, 0, len), exponentials.narrow(0, start, len)); // [v, n]
        let weights = cast_tile(&matrix.narrow(0, start, len), rows.kind(), most, &mut scratch.weights); // [v, D]
        product_into(&mut logits, &weights, &columns);
        // A token's own target is excluded from the products, but not from the sum.
        let here = target_of.iter().enumerate().filter(|(_, target)| (start..start + len).contains(*target));
        let left_out: Vec<_> = here.map(|(token, &target)| ((target - start) as usize, token)).collect();
        let (factors, logits) = softmax.exponentiate::<T>(&logits, &mut tile, &left_out);
        for (&(_, token), logit) in left_out.iter().zip(logits) {
            target_logits[token] = logit;
        }
        maxima.push(softmax.max().to_vec());
        if factors.iter().any(|&factor| factor != 1.0) {
            grad *= Tensor::from_slice(&factors).unsqueeze(1);
        }
        accumulate_product(&mut grad, &tile.transpose(0, 1), &weights);
    }

    let log_sums: Vec<f64> = softmax.log_sum().collect();
    let loss: f64 = log_sums.iter().zip(&target_logits).map(|(sum, &logit)| sum - f64::from(logit)).sum();
    let per_token = |values: Vec<f32>| Tensor::from_slice(&values).unsqueeze(1); // [n, 1]
    let missed = (log_sums.iter().zip(&target_logits))
        .map(|(sum, &logit)| ((f64::from(logit) - sum).exp_m1() * scale) as f32)
        .collect();
    let missed = per_token(missed); // (p - 1) * scale of each target
    let inverse = softmax.sum().iter().map(|sum| (scale / sum) as f32).collect();
    let grad = grad * per_token(inverse) + matrix.index_select(0, targets).to_kind(rows.kind()) * &missed;

    let wide_rows = rows.to_kind(Kind::Float);
    let scaled_by = |max: &[f32]| {
        let share =
            max.iter().zip(&log_sums).map(|(&max, sum)| ((f64::from(max) - sum).exp() * scale) as f32);
        (&wide_rows * per_token(share.collect())).to_kind(rows.kind()) // [n, D]
    };
    let mut scaled = (Vec::new(), Tensor::new());
    for (&(start, len), max) in tiles.iter().zip(maxima) {
        // The maxima rarely change from one tile to the next.
        if scaled.0 != max {
            let rows = scaled_by(&max);
            scaled = (max, rows);
        }
        let mut grad_weights = grad_matrix.sum.narrow(0, start, len);
        let exponentials = exponentials.narrow(0, start, len);
        match grad_matrix.is_stale {
            true => product_into(&mut grad_weights, &exponentials, &scaled.1),
            false => accumulate_product(&mut grad_weights, &exponentials, &scaled.1),
        }
    }
    let _ = grad_matrix.sum.index_add_(0, targets, &(wide_rows * missed));
    (Tensor::from(loss), grad.to_kind(rows.kind()))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Problem {
        x: Tensor,
        targets: Tensor,
        matrix: Tensor,
    }

    /// Pseudorandom numbers of variance 1, the same in every run: libtorch's generator is shared with other tests.
    fn numbers(first: i64, count: i64) -> Tensor {
        let index = Tensor::arange_start(first, first + count, (Kind::Double, Device::Cpu));
        let hashed = (index * 12.9898).sin() * 43_758.5;
        (&hashed - hashed.floor() - 0.5) * 12f64.sqrt()
    }

    /// Logits large enough that a few tokens are likely and some targets nearly certain.
    fn problem(tokens: i64, vocab: i64, kind: Kind) -> Problem {
        let matrix = numbers(0, vocab * 24).view([vocab, 24]);
        let targets = Tensor::arange(tokens, (Kind::Int64, Device::Cpu)) * 7919;
        let targets = targets.remainder(vocab);
        let noise = numbers(vocab * 24, tokens * 24).view([tokens, 24]) * 0.5;
        let x = matrix.index_select(0, &targets) * 0.4 + noise;
        Problem { x: x.to_kind(kind), targets, matrix: matrix.to_kind(kind) }
    }

    /// Loss and gradients of the rows and the matrix, by libtorch's autograd in f64 on the same (rounded) inputs.
    fn oracle(problem: &Problem, scale: f64) -> (f64, Tensor, Tensor) {
        let leaf = |tensor: &Tensor| tensor.to_kind(Kind::Double).copy().set_requires_grad(true);
        let (x, matrix) = (leaf(&problem.x), leaf(&problem.matrix));
        let loss = x.matmul(&matrix.transpose(0, 1)).cross_entropy_loss::<&Tensor>(
            &problem.targets,
            None,
            tch::Reduction::Sum,
            -100,
            0.0,
        );
        (&loss * scale).backward();
        (loss.double_value(&[]), x.grad(), matrix.grad())
    }

    fn relative(seen: &Tensor, expected: &Tensor) -> f64 {
        let difference = (seen.to_kind(Kind::Double) - expected).abs().max();
        difference.double_value(&[]) / expected.abs().max().double_value(&[])
    }

    fn hold(kind: Kind, tokens: i64, vocab: i64, tolerance: f64) {
        let problem = problem(tokens, vocab, kind);
        let (loss, grad_x, grad_matrix) = oracle(&problem, 0.25);
        let _no_grad = tch::no_grad_guard();
        let start =
            Tensor::ones([vocab, 24], (if kind == Kind::Double { kind } else { Kind::Float }, Device::Cpu));
        let mut added = MatrixGradient { sum: start.copy(), is_stale: false };
        let (seen, seen_x) = loss_and_gradient(
            &problem.x,
            &problem.targets,
            &problem.matrix,
            0.25,
            &mut added,
            &mut LossScratch::default(),
        );
        let mut replaced = MatrixGradient { sum: start.full_like(f64::NAN), is_stale: true };
        let Problem { x, targets, matrix } = &problem;
        let _ = loss_and_gradient(x, targets, matrix, 0.25, &mut replaced, &mut LossScratch::default());
        assert!((seen.double_value(&[]) / loss - 1.0).abs() < tolerance, "{kind:?} loss {seen:?} {loss}");
        let matrices = [added.sum - start, replaced.sum].map(|seen| relative(&seen, &grad_matrix));
        let errors = [relative(&seen_x, &grad_x), matrices[0], matrices[1]];
        assert!(errors.iter().all(|&error| error < tolerance), "{kind:?}, {tokens} x {vocab}: {errors:?}");
        let sum = losses(&problem.x, &problem.targets, &problem.matrix).sum(Kind::Double).double_value(&[]);
        assert!((sum / loss - 1.0).abs() < tolerance, "{kind:?}: {sum}, not {loss}");
    }

    #[test]
    fn loss_and_gradients_match_autograd() {
        for (tokens, vocab) in [(1, 5), (37, 1009), (300, 20_011)] {
            hold(Kind::Double, tokens, vocab, 1e-11);
            hold(Kind::Float, tokens, vocab, 5e-5);
        }
        // With a single, nearly certain token, bf16 has too few significant digits.
        for (tokens, vocab) in [(37, 1009), (300, 20_011)] {
            hold(Kind::BFloat16, tokens, vocab, 2e-2);
        }
    }

    #[test]
    fn several_chunks_of_tokens_match_autograd() {
        let rows = Tensor::zeros([1000, 24], (Kind::Float, Device::Cpu));
        assert_eq!(chunks(&rows, 70_001, 4).count(), 2);
        hold(Kind::Float, 1000, 70_001, 5e-5);
    }

    #[test]
    fn nan_weights_give_a_nan_loss() {
        let Problem { x, targets, matrix } = problem(9, 501, Kind::Float);
        let _ = matrix.get(77).fill_(f64::NAN);
        let mut grad = MatrixGradient { sum: matrix.zeros_like(), is_stale: true };
        let (loss, _) = loss_and_gradient(&x, &targets, &matrix, 1.0, &mut grad, &mut LossScratch::default());
        assert!(loss.double_value(&[]).is_nan());
    }
}
