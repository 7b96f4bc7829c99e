// libtorch's wheels hold gloo but not its headers, and ProcessGroupGloo.hpp includes them. These are the few names that
// it mentions; nothing of gloo is called or inherited from here, so that declarations are enough.
#pragma once
#include <chrono>
namespace gloo {
class Context {
public:
  void setTimeout(std::chrono::milliseconds);
};
} // namespace gloo
