// L2 guests that run on all processors of an L1 hypervisor at the same time,
// while each processor's L1 moves, protects, unmaps, merges and splits their
// pages, frees their tables and reads its dirty log.
//
// Each processor has a word of its own in every page, into which it writes
// growing numbers. Its own word must hold what it wrote last, and the word of
// another processor must never decrease, until the page is unmapped
// (l2_page_history.h). Nothing may be written to a page between its protection
// and the next grant (l2_write_protection.h). This detects a translation, or a
// right to write, that outlives its entry on any processor, and a page that
// loses a write while L1 moves it.

#ifndef MMU_CORE_GUEST_HYPERVISOR_SMP_L2_PROGRAM_H_
#define MMU_CORE_GUEST_HYPERVISOR_SMP_L2_PROGRAM_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/guest/gpa_space.h"
#include "mmu_core/guest/hypervisor/l1_cpu.h"
#include "mmu_core/guest/hypervisor/l1_hypervisor.h"
#include "mmu_core/guest/hypervisor/l1_shared.h"
#include "mmu_core/guest/hypervisor/l2_page_history.h"
#include "mmu_core/guest/random.h"

namespace mmu {

struct SmpL2Options {
  L1HypervisorOptions hypervisor = {};
  int cpus = 2;
  int guests = 4;
  uint64_t pages = 24;                // of each guest
  uint64_t stride_bytes = kPageSize;  // from page to page; whole pages
  // Further guests, which other programs run. Their pages are changed too, but
  // keep their contents. They begin at nested gpa 0 and are contiguous.
  int other_guests = 0;
  uint64_t other_pages = 0;
  // Processor i writes word first_word + i of a page. The numbers have these
  // highest 16 bits.
  uint64_t first_word = 0;
  uint64_t tag = 0x7a5e;
  uint64_t seed = 1;

  // Average number of steps of a processor between two such operations; 0:
  // never.
  uint64_t steps_per_switch = 16;  // to any guest
  uint64_t steps_per_unmap = 64;
  uint64_t steps_per_free_table = 64;  // unmaps the page before
  uint64_t steps_per_protect = 64;
  uint64_t steps_per_remap = 64;
  uint64_t steps_per_promote = 512;
  uint64_t steps_per_demote = 256;
  uint64_t steps_per_take_dirty = 1024;
};

// What the processors share. Thread-safe, except as its members say.
struct SmpL2Shared {
  SmpL2Shared(const GpaSpace& memory, const SmpL2Options& smp)
      : options(smp),
        l1(memory, smp.hypervisor, smp.cpus, smp.guests + smp.other_guests),
        histories(static_cast<size_t>(smp.guests)) {
    for (L2GuestHistory& history : histories) {
      history.pages = std::vector<L2PageHistory>(smp.pages);
    }
  }

  const SmpL2Options options;
  L1Shared l1;
  std::vector<L2GuestHistory> histories;  // by guest
};

// The programs of one processor. Thread-compatible.
class SmpL2Program {
 public:
  // One processor calls hypervisor().Boot() before others start.
  SmpL2Program(L1Cpu& cpu, SmpL2Shared& shared, int index);

  // Makes one access, and before it the changes that are due. DATA_LOSS if the
  // access finds a word that it cannot find, writes to a page that is
  // read-only, or if L1's dirty log lacks a page; otherwise the errors of
  // L1Hypervisor. Afterwards the processor may be in L2: see
  // L1Hypervisor::Rest.
  absl::Status Step();
  // Reads all of the processor's own words. Other processors may go on.
  absl::Status Verify();

  L1Hypervisor& hypervisor() { return hypervisor_; }

 private:
  // What the processor knows of a word: its value in the contents that `stamp`
  // stands for.
  struct Word {
    bool known = true;
    uint64_t stamp = 0;
    uint64_t value = 0;
  };
  struct Knowledge {
    std::vector<Word> own;        // by page
    std::vector<Word> neighbour;  // the word of the next processor, by page
  };

  absl::Status Change();
  absl::Status Unmap(int guest, uint64_t page);
  absl::Status FreeTable(int guest, uint64_t page);
  // Takes write permission, and sometimes the permission to execute, from a
  // page of the selected guest.
  absl::Status Forbid(Gpa nested);
  // Grants all permissions to the 2 MiB around `nested`, and merges them.
  absl::Status Promote(Gpa nested);
  absl::Status TakeDirty(int guest);
  // Accesses the word of processor `cpu` in a page of the selected guest. Has
  // L1 grant the permission if it is missing.
  absl::Status Access(uint64_t page, int cpu, AccessKind kind, uint64_t* word);
  absl::Status WriteOwn(uint64_t page);
  absl::Status ReadOwn(int guest, uint64_t page);
  absl::Status ReadNeighbour(uint64_t page);

  bool Due(uint64_t steps) {
    return steps != 0 && UniformBelow(random_, steps) == 0;
  }
  Gpa PageAt(uint64_t page) const {
    return Gpa(page * shared_.options.stride_bytes);
  }
  Gpa WordAt(uint64_t page, int cpu) const {
    return PageAt(page) +
           (shared_.options.first_word + static_cast<uint64_t>(cpu)) *
               sizeof(uint64_t);
  }
  // Calls fn with each L2WriteProtection of the selected guest's pages in a
  // range. Further guests have none.
  template <typename Fn>
  void ForEachProtection(Gpa nested, uint64_t bytes, const Fn& fn);
  // Selects any guest, and returns one of its pages.
  Gpa SelectAnyPage();
  L2PageHistory& HistoryOf(int guest, uint64_t page) {
    return shared_.histories[static_cast<size_t>(guest)].pages[page];
  }
  uint64_t ValueOf(int cpu, uint64_t number) const {
    return shared_.options.tag << 48 | static_cast<uint64_t>(cpu) << 40 |
           number;
  }

  SmpL2Shared& shared_;
  const int index_;
  const int neighbour_;
  L1Hypervisor hypervisor_;
  Rng random_;
  int guest_ = 0;
  uint64_t last_number_ = 0;
  std::vector<Knowledge> knowledge_;  // by guest
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_HYPERVISOR_SMP_L2_PROGRAM_H_
