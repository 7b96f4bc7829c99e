// No C++ exception crosses into Rust: every function of the C side returns nullptr on success, or the message of the
// exception it caught, which the caller frees with oss_free.
#pragma once
#include <c10/util/Exception.h>

#include <cstring>
#include <exception>

namespace {
template <typename F> char *guarded(F body) {
  try {
    body();
    return nullptr;
  } catch (const c10::Error &error) {
    return strdup(error.what_without_backtrace());
  } catch (const std::exception &error) {
    return strdup(error.what());
  }
}
} // namespace
