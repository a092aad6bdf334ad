#include "mmu_core/base/zeroed_memory.h"

#include <sys/mman.h>

#include <cstddef>
#include <cstring>
#include <new>

namespace mmu {
namespace {

constexpr size_t kPage = 4096;
constexpr std::align_val_t kCacheLine{64};

}  // namespace

ZeroedMemory ZeroedMemory::TryAllocate(size_t bytes) {
  ZeroedMemory made;
  if (bytes < kPage) {
    made.memory_ = ::operator new(bytes, kCacheLine, std::nothrow);
    if (made.memory_ != nullptr) std::memset(made.memory_, 0, bytes);
  } else {
    void* const mapped =
        mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped != MAP_FAILED) made.memory_ = mapped;
  }
  made.bytes_ = bytes;
  return made;
}

ZeroedMemory::~ZeroedMemory() {
  if (memory_ == nullptr) return;
  if (bytes_ < kPage) {
    ::operator delete(memory_, kCacheLine);
  } else {
    munmap(memory_, bytes_);
  }
}

}  // namespace mmu
