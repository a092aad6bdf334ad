// The operations of a guest that has tables of its own (kShadow, kNested): it
// edits the tables by stores, invalidates, and accesses memory through them.
// Each access is compared with the flat reference (guest_reference.h), and so
// are the Accessed and Dirty bits that it sets.
//
// The guest invalidates what it must before it uses a page for another purpose:
// a table that nothing links any more, and a page that nothing maps, are free
// only after all vCPUs have dropped all translations (kReclaim).

#ifndef TESTS_MODEL_GUEST_STEPS_H_
#define TESTS_MODEL_GUEST_STEPS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "mmu_core/base/access.h"
#include "mmu_core/vm/vm.h"
#include "tests/model/guest_format.h"
#include "tests/model/guest_layout.h"
#include "tests/model/guest_port.h"
#include "tests/model/guest_reference.h"
#include "tests/model/model_config.h"
#include "tests/model/model_memory.h"
#include "tests/model/operation.h"

namespace mmu::testing {

// A mistake of the guest, for tests that show that it is noticed.
enum class GuestMistake : uint8_t {
  kNone,
  kForgetsToInvalidate,  // believes that it has, and has not
};

// Thread-compatible.
class GuestSteps {
 public:
  // `vm` has the slot of the guest's tables; its memory is zero.
  GuestSteps(Vm& vm, const ModelConfig& config, GuestPort& port,
             ModelMemory& memory, GuestMistake mistake);

  // Makes the tables of all spaces, and switches paging on.
  void Boot();
  // Performs one operation of the guest's tables. problem() is "", or the
  // difference from the reference.
  void Step(const Operation& op);
  const std::string& problem() const { return problem_; }
  // Compares all words of the pages that may be tables.
  void CheckTables();

 private:
  // An entry of a table.
  struct EntryAt {
    uint64_t table = 0;  // page
    uint64_t index = 0;
  };
  struct Space {
    uint64_t root = 0;
    std::vector<uint64_t> tables;  // all above level 1, the root too
    // By region: the entries from the root down to level 2. PDPTEs are left
    // out: a walk does not read them.
    std::array<std::vector<EntryAt>, kRegions> paths;
  };
  enum class PageUse : uint8_t { kFree, kTable, kData, kRetired };

  // --- Accesses. ---
  void Use(const Operation& op);
  // The fault that the translation causes; nullopt if it allows the access.
  std::optional<uint64_t> FaultOf(const ModelTranslation& translation,
                                  AccessKind kind, Privilege privilege) const;
  void CheckRead(const GuestReference::Candidates& allowed, uint64_t word);
  void AdoptWrite(const GuestReference::Candidates& allowed, uint64_t value);
  // After an access: compares Accessed and Dirty of the entries on the way to
  // `place` with what the access must have set, or may have set if the vCPU
  // could use an earlier translation.
  void CheckAccessed(int vcpu, const Place& place,
                     const GuestReference::Candidates& allowed,
                     AccessKind kind);
  void CheckEntry(const EntryAt& at, uint64_t bits, bool must);

  // --- Edits. ---
  void MapPage(int vcpu, const Place& place, const Operation& op);
  void ChangePage(int vcpu, const Place& place, const Operation& op);
  void MapLarge(int vcpu, int space, int region, const Operation& op);
  void Demote(int vcpu, int space, int region);
  void ShareTable(int vcpu, int space, int region, const Operation& op);
  void ProtectLink(int vcpu, int space, int region, const Operation& op);
  void SetLink(int vcpu, int space, int region, const ModelLink& link,
               uint64_t entry);
  void SetLeaf(int vcpu, uint64_t table, int index, const ModelLeaf& leaf,
               uint64_t entry);
  // The page that kMapPage maps.
  uint64_t ChoosePage(const Operation& op);
  Rights ChooseRights(const Operation& op) const;

  // --- Invalidations. ---
  void InvalidatePage(int vcpu, const Place& place);
  void LoadSpace(int vcpu, int space, GuestPort::Flush flush);
  void Reclaim();
  // Invalidates the places for which the reference has no more room.
  void MakeRoom(const std::vector<Place>& places);

  // --- Tables. ---
  bool MakeSpace(int vcpu, Space* space);
  void NewSpace(int vcpu, int space);
  // The direct map's part of a root, made once.
  bool MakeDirectMap(int vcpu);
  void PutDirectMap(int vcpu, uint64_t root);
  // An empty table; nullopt if no page is free.
  std::optional<uint64_t> NewTable(int vcpu);
  void Retire(uint64_t page) { UseOf(page) = PageUse::kRetired; }
  void RetireIfUnlinked(const ModelLink& link);
  void PutEntry(int vcpu, const EntryAt& at, uint64_t value);
  void PutWord(int vcpu, uint64_t page, size_t word, uint64_t value);
  // The model's value of an entry, and the VM's.
  uint64_t Expected(const EntryAt& at) const;
  uint64_t Actual(const EntryAt& at);
  uint64_t ReadWord(uint64_t gpa_bytes);
  EntryAt LeafEntry(uint64_t table, int index) const {
    return {table, format_.IndexOf(PageInRegion(format_, index), 1)};
  }
  EntryAt LinkEntry(int space, int region) const {
    return SpaceAt(space).paths[static_cast<size_t>(region)].back();
  }
  const Space& SpaceAt(int space) const {
    return spaces_[static_cast<size_t>(space)];
  }
  PageUse& UseOf(uint64_t page) { return uses_[page - kGuestBase]; }

  int VcpuOf(const Operation& op) const {
    return static_cast<int>(op.c) % config_.vcpus;
  }
  void Differs(const std::string& problem) {
    if (problem_.empty()) problem_ = problem;
  }

  Vm& vm_;
  const ModelConfig config_;
  const GuestFormat format_;
  GuestPort& port_;
  ModelMemory& memory_;
  const GuestMistake mistake_;
  GuestReference reference_;
  std::array<Space, kSpaces> spaces_;
  std::array<PageUse, kPoolPages> uses_{};
  size_t next_free_ = 0;
  uint64_t direct_map_ = 0;  // the table that each root links; 0: none
  std::string problem_;
};

}  // namespace mmu::testing

#endif  // TESTS_MODEL_GUEST_STEPS_H_
