// The version, the compiler and the build mode of this binary.

#ifndef SERVER_BASE_BUILD_INFO_H_
#define SERVER_BASE_BUILD_INFO_H_

#include <string>

#include "proto/mmud/v1/release.h"

namespace mmud {

inline constexpr const char* kVersion = v1::kRelease;

inline std::string CompilerName() {
#if defined(__clang__)
  return "clang " __clang_version__;
#else
  return "gcc " __VERSION__;
#endif
}

inline std::string BuildMode() {
#if defined(NDEBUG)
  std::string mode = "opt";
#elif defined(__OPTIMIZE__)
  std::string mode = "fastbuild";
#else
  std::string mode = "dbg";
#endif
#if defined(__SANITIZE_ADDRESS__)
  mode += "+asan";
#elif defined(__SANITIZE_THREAD__)
  mode += "+tsan";
#endif
  return mode;
}

}  // namespace mmud

#endif  // SERVER_BASE_BUILD_INFO_H_
