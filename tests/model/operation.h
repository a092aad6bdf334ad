// One step of a random test of a VM: an operation that can be generated,
// printed as C++, and run against a VM and its model.

#ifndef TESTS_MODEL_OPERATION_H_
#define TESTS_MODEL_OPERATION_H_

#include <cstdint>
#include <ostream>
#include <string>

#include "mmu_core/guest/random.h"

namespace mmu::testing {

// A value. Each kind defines the meaning of a, b and c. They are taken modulo
// the number of possible values, so every operation is legal in every state; if
// its VM cannot do what an operation says, the operation does nothing.
struct Operation {
  enum class Kind : uint8_t {
    // The guest accesses its memory by guest-physical address.
    kRead,   // page a by vCPU b
    kWrite,  // page a by vCPU b
    kExec,   // page a by vCPU b
    kSweep,  // 40 writes from page a by vCPU b
    // The host changes memslots, logs, harvests, and works on the tables.
    kCreate,       // slot a at place b with shape c
    kDelete,       // slot a
    kMove,         // slot a to place b
    kStart,        // logging of slot a (all, if it is too large), mode b
    kStop,         // logging of slot a; odd b: recover, odd c: discard
    kSeal,         // all slots; acknowledges too if b is odd
    kPeek,         // slot a
    kClear,        // of slot a, the words from b, the bits that c selects
    kCopy,         // cleared pages of slot a, to the destination
    kAcknowledge,  // epochs up to the one `a` before the last, if allowed
    kAckPages,     // as kAcknowledge, copied pages of slot b that c selects
    kTakeOver,     // the owner dies and another follows; odd b: by force
    kSplit,        // from page a on, order b, chunk c
    kRecover,      // slot a (all, if it is too large)
    kAge,          // 300 pages from a; clears if b is odd
    kDropTlb,      // of vCPU a, an entry chosen by b
    kZapAll,
    kHostWrite,  // page a, past the vCPUs and their tables
    kHostUnmap,  // up to 32 pages from page a, as b says
    kLimit,      // of shadow pages, one of several chosen by a
    kNxHuge,     // the mitigation is on if b is odd
    kNxRecover,  // one in a of the tables that the mitigation split
    // The guest accesses memory through tables of its own. In space a, page b
    // of the region a selects; c has the vCPU and the privilege.
    kUseRead,
    kUseWrite,
    kUseExec,
    // vCPU c changes its tables: entries of space a, page b, frame or rights c.
    kMapPage,
    kUnmapPage,
    kProtectPage,
    kCleanPage,   // takes Accessed and Dirty
    kMapLarge,    // a large page in place of what the region has
    kDemote,      // a table of small pages in place of a large page
    kShareTable,  // links the table of another region or space
    kProtectLink,
    kUnlink,
    kNewSpace,  // new tables in place of those of space a
    kReclaim,   // all translations go; tables and pages may be used anew
    // The guest invalidates translations.
    kInvalidatePage,   // space a, page b, on vCPU c
    kInvalidateSpace,  // space a, on vCPU c
    kLoadSpace,        // space a, on vCPU c; odd b: and invalidates it
  };
  static constexpr int kKinds = 43;
  static constexpr bool IsOfGuestTables(Kind kind) {
    return kind >= Kind::kUseRead;
  }

  Kind kind = Kind::kRead;
  uint32_t a = 0;
  uint32_t b = 0;
  uint32_t c = 0;

  friend bool operator==(const Operation&, const Operation&) = default;
};

std::string ToString(const Operation& op);
std::ostream& operator<<(std::ostream& os, const Operation& op);

// Whether the guest has tables of its own that operations can change.
enum class GuestTablesUse : uint8_t { kNo, kYes };

// A random operation. Accesses find most errors; slots rarely come and go.
Operation RandomOperation(Rng& rng, GuestTablesUse guest_tables);

}  // namespace mmu::testing

#endif  // TESTS_MODEL_OPERATION_H_
