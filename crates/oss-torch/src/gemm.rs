//! CPU matrix products that are faster than those of libtorch's libraries.
//!
//! libtorch delegates f32 to MKL, which on AMD processors uses only AVX2 and half of the machine's throughput; the
//! `gemm` crate has AVX-512 kernels. It delegates bf16 to oneDNN, which compiles a kernel for every new shape,
//! allocates on every call and rounds the addend of an f32 sum. No crate multiplies bf16, so [`bf16`] does. Both
//! support any strides, and accumulate without a separate pass. Both pack their factors first, which does not pay off
//! for a few rows: see [`few`].

#[cfg(target_arch = "x86_64")]
mod bf16;
mod block;
#[cfg(target_arch = "x86_64")]
mod few;
mod matrix;
mod product;
#[cfg(test)]
mod tests;

pub use block::{Block, block_product};

use tch::{Device, Kind, Tensor};

use super::address_range::AddressRange;
use super::bytes::{assert_kind, memory};
use super::slices::OVERLAP;
use matrix::Matrix;
use product::{Product, Start, compute_each};

/// What a product is added to.
#[derive(Clone, Copy, Debug)]
pub enum Accumulate<'a> {
    /// Nothing: the destination is overwritten.
    Zero,
    /// The destination's contents.
    Itself,
    /// A bias row, f32 `[N]`, added to every row.
    Row(&'a Tensor),
}

/// Whether [`gemm()`] supports factors like this one: f32 on the CPU, and bf16 where [`has_bf16_gemm`].
pub fn has_gemm(like: &Tensor) -> bool {
    like.device() == Device::Cpu && kind_has_gemm(like.kind())
}

fn kind_has_gemm(kind: Kind) -> bool {
    match kind {
        Kind::Float => true,
        Kind::BFloat16 => has_bf16_gemm(),
        _ => false,
    }
}

/// Whether [`gemm()`] supports bf16 on this processor.
pub fn has_bf16_gemm() -> bool {
    #[cfg(target_arch = "x86_64")]
    return bf16::is_best();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Whether [`gemm()`] of a few such rows reads a matrix that is contiguous along one dimension only once, at memory
/// bandwidth.
pub fn has_few_rows_gemm(like: &Tensor) -> bool {
    has_bf16_gemm() && has_gemm(like)
}

/// One of several products.
#[derive(Debug)]
pub struct Gemm<'a> {
    /// The product `[M, N]`.
    pub into: &'a mut Tensor,
    /// `[M, K]`.
    pub a: &'a Tensor,
    /// `[K, N]`.
    pub b: &'a Tensor,
    /// What it is added to.
    pub onto: Accumulate<'a>,
}

/// A group of rows and the right factor that they use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// Index of the factor.
    pub index: i64,
    /// First row.
    pub start: i64,
    /// Number of rows.
    pub len: i64,
}

/// `into = onto + a @ b` for CPU tensors `[M, N]`, `[M, K]` and `[K, N]`: all f32, or bf16 factors that [`has_gemm`]
/// supports with a product in bf16 or f32. Sums are f32. Strides are arbitrary, except that a bf16 product must be
/// contiguous along one dimension; the address range of `into`, from its first element to its last, must not overlap
/// those of the others. Results are bit-identical for equal shapes, strides and numbers of threads.
///
/// # Panics
/// Panics if shapes, kinds or strides do not match, or memory is shared.
pub fn gemm(into: &mut Tensor, a: &Tensor, b: &Tensor, onto: Accumulate<'_>) {
    gemm_each(&[Gemm { into, a, b, onto }]);
}

/// Computes several products together, each as in [`gemm()`]; they must not share memory. Every thread does a part of
/// each.
///
/// # Panics
/// Panics as [`gemm()`] does.
pub fn gemm_each(products: &[Gemm<'_>]) {
    let mut read = Vec::with_capacity(3 * products.len());
    let product = |Gemm { into, a, b, onto }: &Gemm<'_>| {
        let [into, a, b] = [&**into, *a, *b].map(Matrix::of);
        let start = match onto {
            Accumulate::Zero => Start::Zero,
            Accumulate::Itself => Start::Itself,
            Accumulate::Row(bias) => {
                assert_eq!(bias.size(), [into.sizes[1] as i64], "the bias must have one value per column");
                read.push(AddressRange::of(bias));
                Start::Row(row(bias, 0))
            }
        };
        read.extend([a.addresses(), b.addresses()]);
        Product::new(into, a, b, start)
    };
    let products: Vec<Product> = products.iter().map(product).collect();
    let written: Vec<AddressRange> = products.iter().map(Product::addresses).collect();
    assert_apart(&written, &read);
    // SAFETY: all tensors are borrowed until the products are done, results do not overlap them or each other, and
    // nothing else accesses them until then.
    unsafe { compute_each(&products) };
}

/// Asserts that no result overlaps a factor or another result.
fn assert_apart(written: &[AddressRange], read: &[AddressRange]) {
    let is_apart = written.iter().enumerate().all(|(index, range)| {
        let mut others = written[..index].iter().chain(read);
        !others.any(|other| range.overlaps(*other))
    });
    assert!(is_apart, "{OVERLAP}");
}

/// Multiplies each group of rows of `a [R, K]` by its factor in `b [G, K, N]`, adds its row of `bias` (f32 `[G, N]`),
/// and writes its rows of `into [R, N]`. The products run side by side as in [`gemm_each`].
///
/// # Panics
/// Panics as [`gemm()`] does, and if groups are out of range or overlap.
pub fn gemm_grouped(into: &mut Tensor, a: &Tensor, b: &Tensor, bias: Option<&Tensor>, groups: &[Group]) {
    let is_in_order = groups.windows(2).all(|pair| pair[0].start + pair[0].len <= pair[1].start);
    assert!(is_in_order, "groups must not overlap and must be in order: {groups:?}");
    let mut read = vec![AddressRange::of(b)];
    read.extend(bias.map(AddressRange::of));
    let [into, a] = [&*into, a].map(Matrix::of);
    read.push(a.addresses());
    assert_apart(&[into.addresses()], &read);
    let product = |group: &Group| {
        let [index, start, len] = [group.index, group.start, group.len].map(|number| number as usize);
        let onto = bias.map_or(Start::Zero, |bias| Start::Row(row(bias, index)));
        Product::new(into.rows(start, len), a.rows(start, len), Matrix::nth(b, index), onto)
    };
    let products: Vec<Product> = groups.iter().map(product).collect();
    // SAFETY: as in `gemm_each`; the groups' rows are in order, so no group's overlap another's.
    unsafe { compute_each(&products) };
}

/// Size of the f32 scale that follows a row's codes, in bytes.
pub const SCALE_BYTES: usize = size_of::<f32>();

/// Whether [`int8_gemm`] is faster on this processor than portable loops.
pub fn has_int8_gemm() -> bool {
    has_bf16_gemm()
}

/// `into [M, N] = x [M, K] @ matrix^T`, plus `bias` (f32 `[N]`), for a few rows: `x` is f32, `into` is f32 or bf16, and
/// `matrix` is i8 `[N, K + 4]`, whose rows are K codes followed by the four bytes of their f32 scale. All are
/// contiguous and on the CPU.
///
/// # Panics
/// Panics if shapes, kinds or strides do not match, `into` shares memory with another tensor, or not [`has_int8_gemm`].
pub fn int8_gemm(into: &mut Tensor, x: &Tensor, matrix: &Tensor, bias: Option<&Tensor>) {
    assert!(has_int8_gemm(), "this processor does not support int8 products");
    let (m, k, n) = (x.size()[0], x.size()[1], matrix.size()[0]);
    let fits = into.size() == [m, n] && matrix.size()[1] == k + SCALE_BYTES as i64 && into.is_contiguous();
    assert!(fits, "cannot multiply shapes {:?} and {:?} into {:?}", x.size(), matrix.size(), into.size());
    let is_float = [Kind::Float, Kind::BFloat16].contains(&into.kind());
    assert!(is_float && x.is_contiguous() && matrix.is_contiguous(), "int8 products need contiguous floats");
    assert_kind::<f32>(x);
    assert_kind::<i8>(matrix);
    let mut read = vec![AddressRange::of(x), AddressRange::of(matrix)];
    read.extend(bias.map(AddressRange::of));
    assert_apart(&[AddressRange::of(into)], &read);
    let (m, k, n) = (m as usize, k as usize, n as usize);
    let start = bias.map_or(Start::Zero, |bias| {
        assert_eq!(bias.size(), [n as i64], "the bias must have one value per column");
        Start::Row(row(bias, 0))
    });
    #[cfg(target_arch = "x86_64")]
    // SAFETY: of these sizes, contiguous and borrowed; `into` does not overlap the others, and nothing else accesses
    // them until the call returns.
    unsafe {
        product::int8_product(Matrix::of(into), memory(x).0.cast(), memory(matrix).0, (m, n, k), start);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (m, k, n, start);
}

/// Pointer to one row of a bias.
fn row(bias: &Tensor, index: usize) -> *const f32 {
    assert_kind::<f32>(bias);
    let (first, _) = memory(bias);
    let width = bias.size().last().copied().unwrap_or(0) as usize;
    assert!((index + 1) * width <= bias.numel(), "row {index} is out of range for {:?}", bias.size());
    first.cast::<f32>().cast_const().wrapping_add(index * width)
}
