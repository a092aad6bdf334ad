#include "mmu_core/testing/failing_allocations.h"

#include <dlfcn.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"

namespace mmu::testing {
namespace {

// One thread's allocations. Constant-initialised, because operator new is
// called before main.
struct Allocations {
  AllocationCount count;
  uint64_t until_failure = 0;  // 0: none fails
  bool failed = false;
};
constinit thread_local Allocations allocations;

void Count(size_t bytes) {
  ++allocations.count.calls;
  allocations.count.bytes += bytes;
}

bool Fails(size_t bytes) {
  Allocations& own = allocations;
  Count(bytes);
  if (own.until_failure == 0 || --own.until_failure != 0) return false;
  own.failed = true;
  return true;
}

// Allocates without counting: the caller has counted the allocation.
#ifdef MMU_SANITIZED
void* Malloc(size_t bytes) { return std::malloc(bytes); }
#else
extern "C" void* __libc_malloc(size_t bytes);
extern "C" void* __libc_calloc(size_t count, size_t bytes);
void* Malloc(size_t bytes) { return __libc_malloc(bytes); }
#endif

void* TryNew(size_t bytes) {
  return Fails(bytes) ? nullptr : Malloc(std::max<size_t>(bytes, 1));
}

void* TryNew(size_t bytes, std::align_val_t alignment) {
  if (Fails(bytes)) return nullptr;
  void* memory = nullptr;
  const size_t at_least =
      std::max(static_cast<size_t>(alignment), sizeof(void*));
  return posix_memalign(&memory, at_least, std::max<size_t>(bytes, 1)) == 0
             ? memory
             : nullptr;
}

// Returns the next function with that name. The cache is not a function-local
// static, because its guard is another function that a sanitizer intercepts.
// Relaxed order suffices, because every look-up finds the same function.
template <typename Function>
Function Next(std::atomic<Function>& known, const char* name) {
  Function next = known.load(std::memory_order_relaxed);
  if (next == nullptr) {
    next = reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
    known.store(next, std::memory_order_relaxed);
  }
  return next;
}

void* OrThrow(void* memory) {
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

Attempt FailOneAllocation(uint64_t nth,
                          absl::FunctionRef<absl::Status()> operation) {
  Attempt attempt;
  allocations.failed = false;
  allocations.until_failure = nth;
  attempt.status = operation();
  allocations.until_failure = 0;
  attempt.failed = allocations.failed;
  return attempt;
}

AllocationCount AllocationsOfThread() { return allocations.count; }

}  // namespace mmu::testing

using mmu::testing::Fails;
using mmu::testing::OrThrow;
using mmu::testing::TryNew;

// Replaces all forms, so that no form from another library is paired with one
// of these.
void* operator new(size_t n) { return OrThrow(TryNew(n)); }
void* operator new[](size_t n) { return OrThrow(TryNew(n)); }
void* operator new(size_t n, const std::nothrow_t&) noexcept {
  return TryNew(n);
}
void* operator new[](size_t n, const std::nothrow_t&) noexcept {
  return TryNew(n);
}
void* operator new(size_t n, std::align_val_t a) {
  return OrThrow(TryNew(n, a));
}
void* operator new[](size_t n, std::align_val_t a) {
  return OrThrow(TryNew(n, a));
}
void* operator new(size_t n, std::align_val_t a,
                   const std::nothrow_t&) noexcept {
  return TryNew(n, a);
}
void* operator new[](size_t n, std::align_val_t a,
                     const std::nothrow_t&) noexcept {
  return TryNew(n, a);
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }
void operator delete[](void* p, size_t) noexcept { std::free(p); }
void operator delete(void* p, const std::nothrow_t&) noexcept { std::free(p); }
void operator delete[](void* p, const std::nothrow_t&) noexcept {
  std::free(p);
}
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, size_t, std::align_val_t) noexcept {
  std::free(p);
}
void operator delete[](void* p, size_t, std::align_val_t) noexcept {
  std::free(p);
}
void operator delete(void* p, std::align_val_t,
                     const std::nothrow_t&) noexcept {
  std::free(p);
}
void operator delete[](void* p, std::align_val_t,
                       const std::nothrow_t&) noexcept {
  std::free(p);
}

// These functions stand in front of those of the C library, or of a sanitizer.
extern "C" {

#ifndef MMU_SANITIZED
void* malloc(size_t bytes) noexcept {
  mmu::testing::Count(bytes);
  return mmu::testing::__libc_malloc(bytes);
}
void* calloc(size_t count, size_t bytes) noexcept {
  mmu::testing::Count(count * bytes);
  return mmu::testing::__libc_calloc(count, bytes);
}
#endif

void* mmap(void* address, size_t bytes, int protection, int flags, int fd,
           off_t offset) noexcept {
  static constinit std::atomic<decltype(&mmap)> known{nullptr};
  const auto next = mmu::testing::Next(known, "mmap");
  constexpr size_t kPage = 4096;
  if (Fails((bytes + kPage - 1) / kPage * kPage)) {
    errno = ENOMEM;
    return MAP_FAILED;
  }
  return next(address, bytes, protection, flags, fd, offset);
}

int memfd_create(const char* name, unsigned flags) noexcept {
  static constinit std::atomic<decltype(&memfd_create)> known{nullptr};
  const auto next = mmu::testing::Next(known, "memfd_create");
  if (Fails(0)) {
    errno = ENOMEM;
    return -1;
  }
  return next(name, flags);
}

}  // extern "C"
