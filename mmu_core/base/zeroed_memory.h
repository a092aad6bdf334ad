// Zeroed memory for a memslot's bookkeeping: an array with an element per page
// or per word of pages. A memslot has between one page and 2^31 pages.

#ifndef MMU_CORE_BASE_ZEROED_MEMORY_H_
#define MMU_CORE_BASE_ZEROED_MEMORY_H_

#include <cstddef>
#include <utility>

namespace mmu {

// Owns the memory, or is empty. Movable. Thread-compatible.
class ZeroedMemory {
 public:
  ZeroedMemory() = default;
  // Allocates `bytes` of zeroes, aligned to a cache line; returns an empty
  // object if the host has no memory. An allocation of a page or more uses no
  // memory until it is written; a smaller one does not take a whole page.
  // `bytes` > 0. May sleep: never call it under mmu_lock (LCK-01).
  static ZeroedMemory TryAllocate(size_t bytes);
  ~ZeroedMemory();
  ZeroedMemory(ZeroedMemory&& other) noexcept
      : memory_(std::exchange(other.memory_, nullptr)), bytes_(other.bytes_) {}
  ZeroedMemory& operator=(ZeroedMemory&& other) noexcept {
    std::swap(memory_, other.memory_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  // Null if empty.
  void* get() const { return memory_; }
  explicit operator bool() const { return memory_ != nullptr; }
  size_t bytes() const { return bytes_; }

 private:
  void* memory_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace mmu

#endif  // MMU_CORE_BASE_ZEROED_MEMORY_H_
