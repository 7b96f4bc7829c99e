// The C side of `c10d/`: the store through which processes rendezvous, and the groups that move tensors between them.
#include "guarded.hpp"

#include <ATen/ATen.h>
#include <torch/csrc/distributed/c10d/FakeProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#define USE_C10D_GLOO
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#ifdef OSS_RUN_CUDA
#define USE_C10D_NCCL
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif

#include <chrono>
#include <cstdlib>

using std::chrono::milliseconds;

namespace {
using Store = c10::intrusive_ptr<c10d::Store>;
using Group = c10::intrusive_ptr<c10d::Backend>;
using Work = c10::intrusive_ptr<c10d::Work>;

Work *keep(Work work) { return new Work(std::move(work)); }
} // namespace

extern "C" {
// `listener` is a bound socket, which the server takes over; if negative, connects to a server that runs elsewhere.
char *oss_store_open(const char *host, uint16_t port, int listener, int64_t timeout_ms, Store **store) {
  return guarded([&] {
#ifndef OSS_RUN_CUDA
    // c10d also throws whatever it logs here, and its stack trace on stderr hides the message; NCCL's watchdog has no
    // other way to report errors.
    if (!getenv("TORCH_CPP_LOG_LEVEL")) {
      FLAGS_caffe2_log_level = c10::GLOG_FATAL;
    }
#endif
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = listener >= 0;
    options.waitWorkers = false;
    options.timeout = milliseconds(timeout_ms);
    if (listener >= 0) {
      options.masterListenFd = listener;
    }
    *store = new Store(c10::make_intrusive<c10d::TCPStore>(host, options));
  });
}

char *oss_store_prefixed(Store *store, const char *prefix, Store **prefixed) {
  return guarded([&] { *prefixed = new Store(c10::make_intrusive<c10d::PrefixStore>(prefix, *store)); });
}

char *oss_store_set(Store *store, const char *key, const uint8_t *bytes, size_t length) {
  return guarded([&] { (*store)->set(key, std::vector<uint8_t>(bytes, bytes + length)); });
}

// `*bytes` stays null if there is no such key; otherwise the caller frees it with oss_free_bytes.
char *oss_store_get(Store *store, const char *key, uint8_t **bytes, size_t *length) {
  return guarded([&] {
    if (!(*store)->check({key})) {
      return;
    }
    auto value = (*store)->get(key);
    *bytes = new uint8_t[value.size() + 1];
    std::copy(value.begin(), value.end(), *bytes);
    *length = value.size();
  });
}

void oss_free_bytes(uint8_t *bytes) { delete[] bytes; }

char *oss_store_delete(Store *store, const char *key) {
  return guarded([&] { (*store)->deleteKey(key); });
}

char *oss_store_add(Store *store, const char *key, int64_t amount, int64_t *sum) {
  return guarded([&] { *sum = (*store)->add(key, amount); });
}

void oss_store_free(Store *store) { delete store; }

// `transport`: 0 NCCL, 1 Gloo, 2 the fake group, which moves nothing. `interface` may be null.
char *oss_group_open(int transport, Store *store, int rank, int size, int64_t timeout_ms, const char *interface,
                     Group **group) {
  return guarded([&] {
    if (transport == 2) {
      *group = new Group(c10d::FakeProcessGroup::_create_internal(rank, size));
    } else if (transport == 1) {
      auto options = interface ? c10d::ProcessGroupGloo::Options::create(milliseconds(timeout_ms))
                               : c10d::ProcessGroupGloo::Options::create_default(milliseconds(timeout_ms));
      if (interface) {
        options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForInterface(interface));
      }
      *group = new Group(c10::make_intrusive<c10d::ProcessGroupGloo>(*store, rank, size, options));
    } else {
#ifdef OSS_RUN_CUDA
      if (interface) {
        // Read when NCCL is first used; variables that the user has set are left alone.
        setenv("NCCL_SOCKET_IFNAME", interface, 0);
      }
      auto options = c10d::ProcessGroupNCCL::Options::create();
      options->timeout = milliseconds(timeout_ms);
      *group = new Group(c10::make_intrusive<c10d::ProcessGroupNCCL>(*store, rank, size, options));
#else
      TORCH_CHECK(false, "this build does not include NCCL");
#endif
    }
  });
}

char *oss_group_all_gather(Group *group, at::Tensor *output, at::Tensor *input, Work **work) {
  return guarded([&] { *work = keep((*group)->_allgather_base(*output, *input, c10d::AllgatherOptions())); });
}

char *oss_group_reduce_scatter(Group *group, at::Tensor *output, at::Tensor *input, Work **work) {
  return guarded(
      [&] { *work = keep((*group)->_reduce_scatter_base(*output, *input, c10d::ReduceScatterOptions())); });
}

char *oss_group_all_reduce(Group *group, at::Tensor *tensor, Work **work) {
  return guarded([&] {
    std::vector<at::Tensor> tensors{*tensor};
    *work = keep((*group)->allreduce(tensors, c10d::AllreduceOptions()));
  });
}

char *oss_group_broadcast(Group *group, at::Tensor *tensor, int root, Work **work) {
  return guarded([&] {
    c10d::BroadcastOptions options;
    options.rootRank = root;
    std::vector<at::Tensor> tensors{*tensor};
    *work = keep((*group)->broadcast(tensors, options));
  });
}

void oss_group_free(Group *group) { delete group; }

char *oss_work_wait(Work *work) {
  return guarded([&] { (*work)->wait(); });
}

void oss_work_free(Work *work) { delete work; }
}
