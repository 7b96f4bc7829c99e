// libtorch's wheels contain gloo but not its headers, which ProcessGroupGloo.hpp includes. These are the few names that
// it mentions; nothing of gloo is called or inherited from here, so declarations are enough.
#pragma once
#include <chrono>
namespace gloo {
class Context {
public:
  void setTimeout(std::chrono::milliseconds);
};
} // namespace gloo
