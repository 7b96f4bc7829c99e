//! Declarations of most functions in `bridge.cpp`, and safe wrappers around them.

use std::ffi::{CStr, c_char, c_int};
use std::ptr::{null, null_mut};

use anyhow::{Result, bail};
use tch::Tensor;
use torch_sys::C_tensor;

unsafe extern "C" {
    fn oss_free(message: *mut c_char);
    fn oss_fused_adamw(
        parameter: *const C_tensor,
        gradient: *const C_tensor,
        exp_avg: *const C_tensor,
        exp_avg_sq: *const C_tensor,
        step: *const C_tensor,
        lr: *const C_tensor,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        eps: f64,
        grad_scale: *const C_tensor,
    ) -> *mut c_char;
    fn oss_flash_attention_forward(
        query: *const C_tensor,
        key: *const C_tensor,
        value: *const C_tensor,
        cum_seq: *const C_tensor,
        max_length: i64,
        scale: f64,
        window_left: i64,
        output: *mut *mut C_tensor,
        logsumexp: *mut *mut C_tensor,
        rng_state: *mut *mut C_tensor,
        unused: *mut *mut C_tensor,
    ) -> *mut c_char;
    fn oss_flash_attention_backward(
        grad_out: *const C_tensor,
        query: *const C_tensor,
        key: *const C_tensor,
        value: *const C_tensor,
        out: *const C_tensor,
        logsumexp: *const C_tensor,
        cum_seq: *const C_tensor,
        max_length: i64,
        rng_state: *const C_tensor,
        unused: *const C_tensor,
        scale: f64,
        window_left: i64,
        grad_query: *mut *mut C_tensor,
        grad_key: *mut *mut C_tensor,
        grad_value: *mut *mut C_tensor,
    ) -> *mut c_char;
    fn oss_set_deterministic(enabled: bool) -> *mut c_char;
    fn oss_cuda_peak_bytes(device: c_int, bytes: *mut i64) -> *mut c_char;
}

/// Turns the message that a bridge function returned into an error.
pub(super) fn checked(operation: &str, message: *mut c_char) -> Result<()> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: a non-null message is a NUL-terminated string that `bridge.cpp` allocated with strdup for us.
    let text = unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned();
    // SAFETY: the message is ours, not used after this, and oss_free is the allocator's own free.
    unsafe { oss_free(message) };
    bail!("{operation}: {text}")
}

/// Hyperparameters of one AdamW step.
#[derive(Clone, Copy, Debug)]
pub struct AdamWOptions {
    /// Decay rates of the moments.
    pub betas: [f64; 2],
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Added to the square root of the second moment.
    pub eps: f64,
}

/// One fused AdamW step, in place; all four tensors have the same shape and kind (f32).
///
/// `step` is a one-element f32 tensor that already counts this step (1 for the first). `lr` is zero-dimensional: f64 on
/// the CPU, or f32 on the parameter's GPU, which causes no synchronization. The gradient is divided by `grad_scale` in
/// the same pass, which makes clipping free.
#[expect(clippy::too_many_arguments, reason = "the parameters of libtorch's operation")]
pub fn fused_adamw(
    parameter: &mut Tensor,
    gradient: &mut Tensor,
    exp_avg: &mut Tensor,
    exp_avg_sq: &mut Tensor,
    step: &Tensor,
    lr: &Tensor,
    hyper: AdamWOptions,
    grad_scale: Option<&Tensor>,
) -> Result<()> {
    let scale = grad_scale.map_or(null(), |tensor| tensor.as_ptr());
    // SAFETY: every pointer comes from a live Tensor borrowed for the call; libtorch checks shapes, kinds and devices.
    let message = unsafe {
        oss_fused_adamw(
            parameter.as_ptr(),
            gradient.as_ptr(),
            exp_avg.as_ptr(),
            exp_avg_sq.as_ptr(),
            step.as_ptr(),
            lr.as_ptr(),
            hyper.betas[0],
            hyper.betas[1],
            hyper.weight_decay,
            hyper.eps,
            scale,
        )
    };
    checked("the fused AdamW step", message)
}

/// Packed rows of different lengths: `cum_seq` is i32 `[rows + 1]`, and tensors are `[tokens, heads, C]`.
#[derive(Debug)]
pub struct Packed {
    /// Start of each row, and the end of the last.
    pub cum_seq: Tensor,
    /// Length of the longest row.
    pub max_length: i64,
}

/// Results of CUDA's flash attention that its backward pass needs.
#[derive(Debug)]
pub struct FlashForward {
    /// `[B, T, H, C]`, or `[tokens, H, C]` if packed.
    pub output: Tensor,
    /// f32 `[B, H, T]`, or `[H, tokens]` if packed.
    pub logsumexp: Tensor,
    rng_state: Tensor,
    unused: Tensor,
}

/// CUDA's causal flash attention (arXiv:2307.08691) on `[B, T, H, C]` in bf16 or f16; there may be fewer key and value
/// heads than query heads. `window` is the number of keys that a query sees, including its own.
pub fn flash_attention_forward(
    (query, key, value): (&Tensor, &Tensor, &Tensor),
    packed: Option<&Packed>,
    scale: f64,
    window: Option<i64>,
) -> Result<FlashForward> {
    let max_length = packed.map_or_else(|| query.size()[1], |rows| rows.max_length);
    let mut results = [null_mut(); 4];
    let [output, logsumexp, rng_state, unused] = &mut results;
    // SAFETY: inputs are live borrowed Tensors; on success the four results are fresh heap tensors that we own.
    let message = unsafe {
        oss_flash_attention_forward(
            query.as_ptr(),
            key.as_ptr(),
            value.as_ptr(),
            packed.map_or(null(), |rows| rows.cum_seq.as_ptr()),
            max_length,
            scale,
            window.map_or(-1, |keys| keys - 1),
            output,
            logsumexp,
            rng_state,
            unused,
        )
    };
    checked("flash attention", message)?;
    // SAFETY: each pointer was made by `new at::Tensor` in the call above and is taken over exactly once.
    let [output, logsumexp, rng_state, unused] = results.map(|tensor| unsafe { Tensor::from_ptr(tensor) });
    Ok(FlashForward { output, logsumexp, rng_state, unused })
}

/// Gradients of query, key and value; `output` and `logsumexp` may differ from those of the forward pass (attention
/// sinks).
pub fn flash_attention_backward(
    grad_output: &Tensor,
    (query, key, value): (&Tensor, &Tensor, &Tensor),
    (output, logsumexp): (&Tensor, &Tensor),
    forward: &FlashForward,
    packed: Option<&Packed>,
    scale: f64,
    window: Option<i64>,
) -> Result<[Tensor; 3]> {
    let max_length = packed.map_or_else(|| query.size()[1], |rows| rows.max_length);
    let mut results = [null_mut(); 3];
    let [grad_query, grad_key, grad_value] = &mut results;
    // SAFETY: inputs are live borrowed Tensors; on success the three results are fresh heap tensors that we own.
    let message = unsafe {
        oss_flash_attention_backward(
            grad_output.as_ptr(),
            query.as_ptr(),
            key.as_ptr(),
            value.as_ptr(),
            output.as_ptr(),
            logsumexp.as_ptr(),
            packed.map_or(null(), |rows| rows.cum_seq.as_ptr()),
            max_length,
            forward.rng_state.as_ptr(),
            forward.unused.as_ptr(),
            scale,
            window.map_or(-1, |keys| keys - 1),
            grad_query,
            grad_key,
            grad_value,
        )
    };
    checked("flash attention, backward", message)?;
    // SAFETY: each pointer was made by `new at::Tensor` in the call above and is taken over exactly once.
    Ok(results.map(|tensor| unsafe { Tensor::from_ptr(tensor) }))
}

/// Makes libtorch choose bit-reproducible kernels, and fail if there is none.
pub fn set_deterministic(enabled: bool) -> Result<()> {
    // SAFETY: sets a flag of libtorch's global context, and in a CUDA build environment variables, before libtorch
    // computes; this program's other threads read none by then. Takes no pointer.
    checked("deterministic mode", unsafe { oss_set_deterministic(enabled) })
}

/// Peak number of bytes allocated by libtorch on CUDA device `device`; 0 in a CPU build.
pub fn cuda_peak_bytes(device: usize) -> Result<i64> {
    let mut bytes = 0;
    // SAFETY: `bytes` outlives the call and is the only pointer passed.
    checked("CUDA memory statistics", unsafe { oss_cuda_peak_bytes(device as c_int, &mut bytes) })?;
    Ok(bytes)
}
