// Zeroed memory for the bookkeeping of a memslot: an array for each page or
// word of its pages, which may be one page or 2^31.

#ifndef MMU_CORE_BASE_ZEROED_MEMORY_H_
#define MMU_CORE_BASE_ZEROED_MEMORY_H_

#include <cstddef>
#include <utility>

namespace mmu {

// Owns the memory, or none. Movable. Thread-compatible.
class ZeroedMemory {
 public:
  ZeroedMemory() = default;
  // `bytes` of zeroes at a cache line of their own; none if the host has no
  // memory. From a page on they cost nothing until they are written; less does
  // not take a whole page. `bytes` > 0. May sleep: never call it under mmu_lock
  // (LCK-01).
  static ZeroedMemory TryAllocate(size_t bytes);
  ~ZeroedMemory();
  ZeroedMemory(ZeroedMemory&& other) noexcept
      : memory_(std::exchange(other.memory_, nullptr)), bytes_(other.bytes_) {}
  ZeroedMemory& operator=(ZeroedMemory&& other) noexcept {
    std::swap(memory_, other.memory_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  // Null if there is none.
  void* get() const { return memory_; }
  explicit operator bool() const { return memory_ != nullptr; }
  size_t bytes() const { return bytes_; }

 private:
  void* memory_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace mmu

#endif  // MMU_CORE_BASE_ZEROED_MEMORY_H_
