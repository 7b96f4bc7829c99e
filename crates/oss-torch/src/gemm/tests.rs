use super::product::parts;
use super::*;

/// Pseudorandom values between -1 and 1, the same in every run: libtorch's generator is shared with other tests.
fn numbers(shape: [i64; 2], kind: Kind) -> Tensor {
    let index = Tensor::arange(shape[0] * shape[1], (Kind::Double, Device::Cpu)) + (shape[1] * 7);
    let hashed = (index * 12.9898).sin() * 43_758.5;
    ((&hashed - hashed.floor()) * 2.0 - 1.0).view(shape).to_kind(kind)
}

/// A `[rows, columns]` view into a larger matrix or, with `turned`, into the transpose of one.
fn matrix(rows: i64, columns: i64, turned: bool, kind: Kind) -> Tensor {
    match turned {
        true => numbers([columns, rows + 1], kind).narrow(1, 1, rows).transpose(0, 1),
        false => numbers([rows, columns + 3], kind).narrow(1, 2, columns),
    }
}

fn difference(a: &Tensor, b: &Tensor) -> f64 {
    (a.to_kind(Kind::Double) - b).abs().max().double_value(&[])
}

const SIZES: [(i64, i64, i64); 13] = [
    (1, 1, 1),
    (1, 300, 70),
    (65, 1, 33),
    (130, 257, 64),
    (300, 200, 1),
    (3, 70, 97),
    (4, 33, 256),
    (2, 3001, 200),
    (7, 31, 515),
    (1000, 65, 258),
    (400, 16, 31),
    (0, 5, 3),
    (4, 6, 0),
];

/// Compares products of many sizes, memory orders and accumulation modes with f64; `tolerance` is relative to the
/// largest value that the product can reach.
fn hold(factors: Kind, product: Kind, tolerance: f64) {
    for (m, n, k) in SIZES {
        for turned in 0..8 {
            let (a, b) = (matrix(m, k, turned & 1 == 1, factors), matrix(k, n, turned & 2 == 2, factors));
            let row = numbers([1, n], Kind::Float).view([n]);
            let expected = a.to_kind(Kind::Double).matmul(&b.to_kind(Kind::Double));
            for onto in [Accumulate::Zero, Accumulate::Itself, Accumulate::Row(&row)] {
                let mut into = matrix(m, n, turned & 4 == 4, product);
                let expected = match onto {
                    Accumulate::Zero => expected.shallow_clone(),
                    Accumulate::Itself => &expected + into.to_kind(Kind::Double),
                    Accumulate::Row(row) => &expected + row.to_kind(Kind::Double),
                };
                gemm(&mut into, &a, &b, onto);
                if into.numel() > 0 {
                    let most = tolerance * (1.0 + (k as f64).sqrt());
                    let off = difference(&into, &expected);
                    assert!(off < most, "{m} {n} {k}, order {turned}, {onto:?}: off by {off}");
                }
            }
        }
    }
}

#[test]
fn f32_products_of_any_strides_and_sizes_match_f64() {
    hold(Kind::Float, Kind::Float, 1e-5);
}

#[test]
fn bf16_products_of_any_strides_and_sizes_match_f64() {
    if !has_gemm(&Tensor::zeros([1, 1], (Kind::BFloat16, Device::Cpu))) {
        return;
    }
    // f32 products are accurate to f32; a bf16 product is rounded once.
    hold(Kind::BFloat16, Kind::Float, 1e-5);
    hold(Kind::BFloat16, Kind::BFloat16, 2f64.powi(-7));
}

#[test]
fn only_the_product_is_written() {
    for kind in [Kind::Float, Kind::BFloat16] {
        let (a, b) = (numbers([70, 40], kind), numbers([40, 70], kind));
        if has_gemm(&a) {
            let whole = Tensor::full([72, 72], 7.0, (kind, Device::Cpu));
            gemm(&mut whole.narrow(0, 1, 70).narrow(1, 1, 70), &a, &b, Accumulate::Zero);
            for edge in [whole.get(0), whole.get(71), whole.select(1, 0), whole.select(1, 71)] {
                assert!(edge.eq(7.0).all().int64_value(&[]) == 1, "{kind:?}");
            }
        }
    }
}

#[test]
fn nan_in_the_destination_is_overwritten() {
    for kind in [Kind::Float, Kind::BFloat16] {
        let mut into = Tensor::full([3, 3], f64::NAN, (kind, Device::Cpu));
        let (a, b) = (into.new_ones([3, 2], (kind, Device::Cpu)), into.new_ones([2, 3], (kind, Device::Cpu)));
        if has_gemm(&a) {
            gemm(&mut into, &a, &b, Accumulate::Zero);
            assert_eq!(into.sum(Kind::Float).double_value(&[]), 18.0);
        }
    }
}

#[test]
fn parts_cover_the_product() {
    for (m, n) in [(1, 100_000), (100_000, 1), (777, 555)] {
        let covered: usize = parts([m, n], 6).iter().map(|part| part.rows.1 * part.columns.1).sum();
        assert_eq!(covered, m * n);
    }
}

#[test]
#[should_panic(expected = "cannot multiply")]
fn mismatched_shapes_are_rejected() {
    let zeros = |shape: [i64; 2]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
    gemm(&mut zeros([2, 2]), &zeros([2, 3]), &zeros([4, 2]), Accumulate::Zero);
}

#[test]
#[should_panic(expected = "shares memory")]
fn a_product_cannot_alias_its_factor() {
    let square = numbers([4, 4], Kind::Float);
    gemm(
        &mut square.shallow_clone(),
        &numbers([4, 4], Kind::Float),
        &square.transpose(0, 1),
        Accumulate::Zero,
    );
}

#[test]
#[should_panic(expected = "shares memory")]
fn a_product_is_not_its_own_bias() {
    let rows = numbers([3, 4], Kind::Float);
    let (a, b) = (numbers([2, 5], Kind::Float), numbers([5, 4], Kind::Float));
    gemm(&mut rows.narrow(0, 0, 2), &a, &b, Accumulate::Row(&rows.get(1)));
}

#[test]
#[should_panic(expected = "shares memory")]
fn products_computed_together_are_not_each_others_factors() {
    let [first, second] = [(); 2].map(|()| numbers([3, 3], Kind::Float));
    let (mut into, mut also) = (first.zeros_like(), first.shallow_clone());
    gemm_each(&[
        Gemm { into: &mut into, a: &first, b: &second, onto: Accumulate::Zero },
        Gemm { into: &mut also, a: &second, b: &second, onto: Accumulate::Zero },
    ]);
}

#[test]
#[should_panic(expected = "shares memory")]
fn products_computed_together_do_not_share_a_destination() {
    let [a, b] = [(); 2].map(|()| numbers([3, 3], Kind::Float));
    let mut into = a.zeros_like();
    let mut same = into.shallow_clone();
    gemm_each(&[
        Gemm { into: &mut into, a: &a, b: &b, onto: Accumulate::Zero },
        Gemm { into: &mut same, a: &a, b: &b, onto: Accumulate::Zero },
    ]);
}

#[test]
#[should_panic(expected = "shares memory")]
fn a_grouped_product_cannot_alias_its_factor() {
    let rows = numbers([4, 3], Kind::Float);
    let b = numbers([3, 3], Kind::Float).view([1, 3, 3]);
    let groups = [Group { index: 0, start: 0, len: 4 }];
    gemm_grouped(&mut rows.shallow_clone(), &rows, &b, None, &groups);
}

#[test]
#[should_panic(expected = "overlapping elements")]
fn an_expanded_row_is_not_a_valid_destination() {
    let zeros = |shape: [i64; 2]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
    let mut into = zeros([1, 4]).expand([3, 4], false);
    gemm(&mut into, &zeros([3, 2]), &zeros([2, 4]), Accumulate::Zero);
}

#[test]
fn each_group_of_rows_has_its_own_factor() {
    for kind in [Kind::Float, Kind::BFloat16] {
        for lens in [[1, 1, 0], [3, 200, 7], [0, 0, 0]] {
            for turned in [false, true] {
                let a = numbers([lens.iter().sum::<i64>() + 2, 65], kind);
                if !has_gemm(&a) {
                    continue;
                }
                let b = numbers([4 * 65, 33], kind).view([4, 65, 33]);
                let b = if turned { b.transpose(1, 2).contiguous().transpose(1, 2) } else { b };
                let bias = numbers([4, 33], Kind::Float);
                let mut start = 1;
                // No group uses the last factor or includes the first and last rows.
                let groups: Vec<Group> = (lens.iter().zip([2, 0, 1]))
                    .map(|(&len, index)| {
                        start += len;
                        Group { index, start: start - len, len }
                    })
                    .collect();
                for bias in [None, Some(&bias)] {
                    let mut into = Tensor::full([a.size()[0], 33], 7.0, (kind, Device::Cpu));
                    let expected = into.to_kind(Kind::Double);
                    for Group { index, start, len } in groups.iter().copied() {
                        let [mut rows, factor] =
                            [(&expected, start), (&a, start)].map(|(x, start)| x.narrow(0, start, len));
                        let mut product =
                            factor.to_kind(Kind::Double).matmul(&b.get(index).to_kind(Kind::Double));
                        if let Some(bias) = bias {
                            product += bias.get(index).to_kind(Kind::Double);
                        }
                        rows.copy_(&product);
                    }
                    gemm_grouped(&mut into, &a, &b, bias, &groups);
                    let most = if kind == Kind::Float { 1e-4 } else { 0.1 };
                    assert!(difference(&into, &expected) < most, "{lens:?}, {kind:?}, turned {turned}");
                }
            }
        }
    }
}

#[test]
#[should_panic(expected = "groups must not overlap")]
fn groups_do_not_overlap() {
    let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
    let groups = [Group { index: 0, start: 0, len: 2 }, Group { index: 1, start: 1, len: 1 }];
    gemm_grouped(&mut zeros(&[3, 2]), &zeros(&[3, 2]), &zeros(&[2, 2, 2]), None, &groups);
}
