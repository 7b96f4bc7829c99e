//! Matrix products on the CPU that libtorch's libraries are slower at.
//!
//! libtorch leaves f32 to MKL, which on AMD's processors stays with AVX2 and half of the machine's speed; the crate `gemm` has
//! kernels for AVX-512. It leaves bf16 to oneDNN, which compiles a kernel for every new shape, allocates in every call and
//! rounds what is to be added to an f32 sum; no crate multiplies bf16, so [`bf16`] does. Both take any strides, and add to what
//! is there without a pass of its own. Both pack their factors first, for which few rows are too few: [`few`].

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
    /// Nothing: what was there is overwritten.
    Zero,
    /// What is there.
    Itself,
    /// This row, f32 `[N]`, in each row.
    Row(&'a Tensor),
}

/// Whether [`gemm()`] takes factors like this one: f32 on the CPU, and bf16 where [`has_bf16_gemm`].
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

/// Whether this processor is one for which [`gemm()`] multiplies bf16.
pub fn has_bf16_gemm() -> bool {
    #[cfg(target_arch = "x86_64")]
    return bf16::is_best();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Whether [`gemm()`] of few rows like these reads a matrix, whose numbers are neighbours along one axis, once and at the speed of the
/// memory.
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

/// Some rows, and which of several right factors is theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// Which of the factors.
    pub index: i64,
    /// The first row.
    pub start: i64,
    /// Their number.
    pub len: i64,
}

/// `into = onto + a @ b`: CPU tensors `[M, N]`, `[M, K]`, `[K, N]`, all f32, or bf16 factors that [`has_gemm`] takes with a
/// product in bf16 or f32; sums are f32. Strides are free, but a product of bf16 has neighbours along one axis; `into` shares no
/// memory with the others, between its first element and its last. Bit-identical for equal shapes, strides and numbers of
/// threads.
///
/// # Panics
/// When shapes, kinds or strides are others, or memory is shared.
pub fn gemm(into: &mut Tensor, a: &Tensor, b: &Tensor, onto: Accumulate<'_>) {
    gemm_each(&[Gemm { into, a, b, onto }]);
}

/// Several products at once, each as in [`gemm()`], which share no memory: every thread has its part of each.
///
/// # Panics
/// As [`gemm()`].
pub fn gemm_each(products: &[Gemm<'_>]) {
    let mut read = Vec::with_capacity(3 * products.len());
    let product = |Gemm { into, a, b, onto }: &Gemm<'_>| {
        let [into, a, b] = [&**into, *a, *b].map(Matrix::of);
        let start = match onto {
            Accumulate::Zero => Start::Zero,
            Accumulate::Itself => Start::Itself,
            Accumulate::Row(bias) => {
                assert_eq!(bias.size(), [into.sizes[1] as i64], "a row that is added");
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
    // SAFETY: all tensors are borrowed until the products are done, results lie apart from them and from each other, and nothing
    // else runs meanwhile.
    unsafe { compute_each(&products) };
}

/// Asserts that nobody's result is anybody's factor or result.
fn assert_apart(written: &[AddressRange], read: &[AddressRange]) {
    let is_apart = written.iter().enumerate().all(|(index, range)| {
        let mut others = written[..index].iter().chain(read);
        !others.any(|other| range.overlaps(*other))
    });
    assert!(is_apart, "{OVERLAP}");
}

/// Each group of rows of `a [R, K]` times its own factor of `b [G, K, N]`, plus its own row of `bias` (f32 `[G, N]`), to its rows of
/// `into [R, N]`, side by side as in [`gemm_each`].
///
/// # Panics
/// As [`gemm()`], and when groups leave the rows or the factors, or share rows.
pub fn gemm_grouped(into: &mut Tensor, a: &Tensor, b: &Tensor, bias: Option<&Tensor>, groups: &[Group]) {
    let is_in_order = groups.windows(2).all(|pair| pair[0].start + pair[0].len <= pair[1].start);
    assert!(is_in_order, "groups of rows of their own, not {groups:?}");
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
    // SAFETY: as in `gemm_each`; the groups' rows are in order, so each lies apart from the others'.
    unsafe { compute_each(&products) };
}

/// Bytes of the scale, f32, that follows a row's codes.
pub const SCALE_BYTES: usize = size_of::<f32>();

/// Whether this processor is one for which [`int8_gemm`] reads codes faster than portable loops.
pub fn has_int8_gemm() -> bool {
    has_bf16_gemm()
}

/// `into [M, N] = x [M, K] @ matrix^T`, plus `bias` (f32 `[N]`), for few rows: `x` is f32, `into` f32 or bf16, and `matrix` is i8
/// `[N, K + 4]`, whose rows are K codes and the four bytes of their scale, f32. All are contiguous, on the CPU.
///
/// # Panics
/// When shapes, kinds or strides are others, `into` shares memory with another, or not [`has_int8_gemm`].
pub fn int8_gemm(into: &mut Tensor, x: &Tensor, matrix: &Tensor, bias: Option<&Tensor>) {
    assert!(has_int8_gemm(), "a product of codes on a processor that has none");
    let (m, k, n) = (x.size()[0], x.size()[1], matrix.size()[0]);
    let fits = into.size() == [m, n] && matrix.size()[1] == k + SCALE_BYTES as i64 && into.is_contiguous();
    assert!(fits, "a product of {:?} and {:?} in {:?}", x.size(), matrix.size(), into.size());
    let is_float = [Kind::Float, Kind::BFloat16].contains(&into.kind());
    assert!(is_float && x.is_contiguous() && matrix.is_contiguous(), "a product of codes in floats");
    assert_kind::<f32>(x);
    assert_kind::<i8>(matrix);
    let mut read = vec![AddressRange::of(x), AddressRange::of(matrix)];
    read.extend(bias.map(AddressRange::of));
    assert_apart(&[AddressRange::of(into)], &read);
    let (m, k, n) = (m as usize, k as usize, n as usize);
    let start = bias.map_or(Start::Zero, |bias| {
        assert_eq!(bias.size(), [n as i64], "a row that is added");
        Start::Row(row(bias, 0))
    });
    #[cfg(target_arch = "x86_64")]
    // SAFETY: of these sizes, contiguous and borrowed; `into` lies apart from the others, and nothing else runs meanwhile.
    unsafe {
        product::int8_product(Matrix::of(into), memory(x).0.cast(), memory(matrix).0, (m, n, k), start);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (m, k, n, start);
}

/// Where one of the rows of a bias begins.
fn row(bias: &Tensor, index: usize) -> *const f32 {
    assert_kind::<f32>(bias);
    let (first, _) = memory(bias);
    let width = bias.size().last().copied().unwrap_or(0) as usize;
    assert!((index + 1) * width <= bias.numel(), "row {index} of {:?}", bias.size());
    first.cast::<f32>().cast_const().wrapping_add(index * width)
}
