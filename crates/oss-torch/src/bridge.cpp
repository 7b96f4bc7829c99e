// The C side of `bridge.rs`, `owned.rs`, `parallel.rs`, `spinning.rs` and `transfer.rs`: operations of libtorch that
// tch does not expose.
#include "guarded.hpp"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/ops/_flash_attention_backward.h>
#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/_fused_adamw.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>

#include <omp.h>

#ifdef OSS_RUN_CUDA
#include <c10/cuda/CUDACachingAllocator.h>
#endif

namespace {
std::optional<at::Tensor> optional(at::Tensor *tensor) {
  return tensor ? std::make_optional(*tensor) : std::nullopt;
}

// oneDNN and libtorch's layer above it each cache 1024 compiled primitives of about half a megabyte. Experts see a
// different number of rows each time, so almost no entry is reused and the cache only costs 600 MB of bf16 kernels.
// Both variables are read on first use, and no other thread runs yet when they are set.
//
// libtorch returns the memory of large tensors to the kernel immediately, so most are allocated from fresh pages, which
// are cheaper as 2 MB huge pages.
//
// On GPUs, layers and batches allocate blocks of many sizes, and splitting a segment made for one size to serve another
// leaves gaps: gigabytes on a nearly full GPU. Expandable segments leave none.
//
// Variables that the user has set are left alone.
struct Environment {
  Environment() {
    setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128", 0);
    setenv("LRU_CACHE_CAPACITY", "128", 0);
    setenv("THP_MEM_ALLOC_ENABLE", "1", 0);
#ifdef OSS_RUN_CUDA
    // The allocator reads these, in this order, when the first tensor is allocated on a GPU.
    if (!getenv("PYTORCH_CUDA_ALLOC_CONF") && !getenv("PYTORCH_ALLOC_CONF")) {
      setenv("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True", 1);
    }
#endif
  }
} environment;
} // namespace

extern "C" {
void oss_free(char *message) { free(message); }

// Whether this handle is the only reference to its storage. Any earlier owner had finished with the memory before
// releasing it.
bool oss_is_unshared(at::Tensor *tensor) {
  bool unshared = tensor->use_count() == 1 && tensor->storage().use_count() == 1;
  std::atomic_thread_fence(std::memory_order_acquire);
  return unshared;
}

char *oss_fused_adamw(at::Tensor *parameter, at::Tensor *gradient, at::Tensor *exp_avg, at::Tensor *exp_avg_sq,
                      at::Tensor *step, at::Tensor *lr, double beta1, double beta2, double weight_decay, double eps,
                      at::Tensor *grad_scale) {
  return guarded([&] {
    at::_fused_adamw_({*parameter}, {*gradient}, {*exp_avg}, {*exp_avg_sq}, at::TensorList(), {*step}, *lr, beta1,
                      beta2, weight_decay, eps, false, false, optional(grad_scale));
  });
}

char *oss_flash_attention_forward(at::Tensor *query, at::Tensor *key, at::Tensor *value, at::Tensor *cum_seq,
                                  int64_t max_length, double scale, int64_t window_left, at::Tensor **output,
                                  at::Tensor **logsumexp, at::Tensor **rng_state, at::Tensor **unused) {
  return guarded([&] {
    auto window = window_left < 0 ? std::optional<int64_t>() : std::optional<int64_t>(window_left);
    auto right = window_left < 0 ? std::optional<int64_t>() : std::optional<int64_t>(0);
    auto result = at::_flash_attention_forward(*query, *key, *value, optional(cum_seq), optional(cum_seq), max_length,
                                               max_length, 0.0, true, false, scale, window, right);
    *output = new at::Tensor(std::get<0>(result));
    *logsumexp = new at::Tensor(std::get<1>(result));
    *rng_state = new at::Tensor(std::get<2>(result));
    *unused = new at::Tensor(std::get<3>(result));
  });
}

char *oss_flash_attention_backward(at::Tensor *grad_out, at::Tensor *query, at::Tensor *key, at::Tensor *value,
                                   at::Tensor *out, at::Tensor *logsumexp, at::Tensor *cum_seq, int64_t max_length,
                                   at::Tensor *rng_state, at::Tensor *unused, double scale, int64_t window_left,
                                   at::Tensor **grad_query, at::Tensor **grad_key, at::Tensor **grad_value) {
  return guarded([&] {
    auto window = window_left < 0 ? std::optional<int64_t>() : std::optional<int64_t>(window_left);
    auto right = window_left < 0 ? std::optional<int64_t>() : std::optional<int64_t>(0);
    // The operation does not accept an optional here: an undefined tensor means rows of equal length.
    at::Tensor lengths = cum_seq ? *cum_seq : at::Tensor();
    auto result = at::_flash_attention_backward(*grad_out, *query, *key, *value, *out, *logsumexp, lengths, lengths,
                                                max_length, max_length, 0.0, true, *rng_state, *unused, scale, window,
                                                right);
    *grad_query = new at::Tensor(std::get<0>(result));
    *grad_key = new at::Tensor(std::get<1>(result));
    *grad_value = new at::Tensor(std::get<2>(result));
  });
}

char *oss_pin_memory(at::Tensor *tensor, at::Tensor **pinned) {
  return guarded([&] { *pinned = new at::Tensor(tensor->pin_memory()); });
}

char *oss_copy_async(at::Tensor *target, at::Tensor *source) {
  return guarded([&] { target->copy_(*source, true); });
}

char *oss_parallel_for(int64_t count, void (*work)(void *, int64_t), void *context) {
  return guarded([&] {
    at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t index = begin; index < end; ++index)
        work(context, index);
    });
  });
}

// Gives the calling thread a team with which libgomp manages more threads than there are CPUs.
char *oss_empty_team(int32_t busy_threads) {
  return guarded([&] {
    int size = std::max(omp_get_num_procs() - busy_threads, 0) + 2;
#pragma omp parallel num_threads(size)
    asm volatile(""); // or the compiler would leave the region out
  });
}

char *oss_set_deterministic(bool enabled) {
  return guarded([&] {
#ifdef OSS_RUN_CUDA
    if (enabled) {
      // cuBLAS and NCCL read these on first use. Without them cuBLAS sums in an unspecified order, and libtorch refuses
      // to call it. Variables that the user has set are left alone.
      setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", 0);
      setenv("NCCL_ALGO", "Ring", 0);
      setenv("NCCL_NVLS_ENABLE", "0", 0);
    }
#endif
    at::globalContext().setDeterministicAlgorithms(enabled, false);
    // Filling fresh memory is libtorch's guard against uninitialized reads; no operation here does that.
    at::globalContext().setDeterministicFillUninitializedMemory(false);
  });
}

char *oss_cuda_peak_bytes(int device, int64_t *bytes) {
  return guarded([&] {
#ifdef OSS_RUN_CUDA
    auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(device);
    *bytes = stats.allocated_bytes[static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE)].peak;
#else
    (void)device;
    *bytes = 0;
#endif
  });
}
}
