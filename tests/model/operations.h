// One step of a random test of a VM: an operation that can be generated,
// printed as C++, and run against a VM and its model.

#ifndef TESTS_MODEL_OPERATIONS_H_
#define TESTS_MODEL_OPERATIONS_H_

#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

#include "mmu_core/vm/core/vm_config.h"

namespace mmu::testing {

// A value. Each kind defines the meaning of a, b and c. They are taken modulo
// the number of possible values, so every operation is legal in every state.
struct Operation {
  enum class Kind : uint8_t {
    kRead,         // page a by vCPU b
    kWrite,        // page a by vCPU b
    kExec,         // page a by vCPU b
    kSweep,        // 40 writes from page a by vCPU b
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
  };
  static constexpr int kKinds = 21;

  Kind kind = Kind::kRead;
  uint32_t a = 0;
  uint32_t b = 0;
  uint32_t c = 0;
};

std::string ToString(const Operation& op);
std::ostream& operator<<(std::ostream& os, const Operation& op);

// The mistake that the owner of the log makes.
enum class Mistake { kNone, kAcknowledgesBeforeItCopies };

// Runs the operations on a fresh VM with `vcpus` vCPUs, which log by themselves
// or not, and on its model. After each operation it compares the VM with the
// model, and the copy of the log's owners with the guest's memory. Returns "",
// or the difference, the step, and the operations up to it as C++ that can
// become a test.
std::string RunOperations(const std::vector<Operation>& operations, int vcpus,
                          VmConfig::Pml pml = VmConfig::Pml::kNo,
                          Mistake mistake = Mistake::kNone);

}  // namespace mmu::testing

#endif  // TESTS_MODEL_OPERATIONS_H_
