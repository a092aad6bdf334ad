// Words of guest-physical memory, as a walk of a guest's tables needs them.
//
// This is an interface because not every walk finds the words in the same way:
// L1's tables are in the memslots (memory/guest_memory_access.h), those of an
// L2 guest are behind one more translation.

#ifndef MMU_CORE_MEMORY_GUEST_WORDS_H_
#define MMU_CORE_MEMORY_GUEST_WORDS_H_

#include <cstdint>

#include "mmu_core/base/address.h"

namespace mmu {

enum class WordSize : uint8_t { k4 = 4, k8 = 8 };

enum class GuestWordResult : uint8_t {
  kDone,
  kChanged,       // compare-exchange: another value was there; nothing written
  kReadonly,      // compare-exchange: the memslot is read-only; nothing written
  kHostReadonly,  // compare-exchange: the host lets the page be read only now;
                  // nothing written
  kRingFull,      // compare-exchange: the page would have to be noted in a
                  // dirty ring that has no room; nothing written
  kNoSlot,        // no memslot has the address, or it is being deleted or moved
  kFrameMissing,  // the host has no page there now (memory/frame_lender.h)
  kNoContents,    // the memory is metadata only: there is nothing to read
};

// Words are naturally aligned and in the guest's byte order, which is the
// host's.
class GuestWords {
 public:
  virtual ~GuestWords() = default;

  // Atomically reads the word at `gpa` into `value`. `value` is unchanged if
  // the result is not kDone. REQUIRES: gpa is a multiple of the size.
  virtual GuestWordResult Read(Gpa gpa, WordSize size, uint64_t* value) = 0;

  // Writes `desired` if the word at `gpa` is `expected`, in one atomic step,
  // and marks the page in the dirty log. REQUIRES: as Read; the values fit the
  // size.
  virtual GuestWordResult CompareExchange(Gpa gpa, WordSize size,
                                          uint64_t expected,
                                          uint64_t desired) = 0;
};

}  // namespace mmu

#endif  // MMU_CORE_MEMORY_GUEST_WORDS_H_
