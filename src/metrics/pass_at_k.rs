//! The unbiased estimator of pass@k.

/// The probability that at least one of `k` samples passes, drawn without replacement from `n` of
/// which `c` pass: 1 − C(n−c, k) / C(n, k), as a product that does not overflow.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "numbers of samples are far below 2^53")]
pub fn pass_at_k(n: u64, c: u64, k: u64) -> f64 {
    let failed = n.saturating_sub(c);
    if failed < k {
        return 1.0;
    }
    1.0 - (failed + 1..=n).map(|i| 1.0 - k as f64 / i as f64).product::<f64>()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn binomial(n: u64, k: u64) -> u128 {
        if k > n { 0 } else { (0..k).fold(1, |product, i| product * u128::from(n - i) / u128::from(i + 1)) }
    }

    #[rstest]
    #[case(1, 0, 1, 0.0)]
    #[case(1, 1, 1, 1.0)]
    #[case(10, 3, 1, 0.3)]
    #[case(4, 2, 2, 5.0 / 6.0)]
    #[case(5, 1, 5, 1.0)]
    #[case(200, 0, 100, 0.0)]
    fn known_values(#[case] n: u64, #[case] c: u64, #[case] k: u64, #[case] expected: f64) {
        assert!((pass_at_k(n, c, k) - expected).abs() < 1e-12);
    }

    proptest! {
        #[test]
        #[expect(clippy::cast_precision_loss, reason = "the comparison is approximate")]
        fn exact_binomials(n in 1_u64..60, c in 0_u64..60, k in 1_u64..60) {
            let (c, k) = (c.min(n), k.min(n));
            let exact = 1.0 - binomial(n - c, k) as f64 / binomial(n, k) as f64;
            prop_assert!((pass_at_k(n, c, k) - exact).abs() < 1e-9);
        }
    }
}
