#include "mmu_core/guest/hypervisor/l2_program.h"

#include <algorithm>
#include <vector>

#include "absl/memory/memory.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/format.h"
#include "mmu_core/base/level.h"

namespace mmu {
namespace {

// The maximum number of L1's frames that tables need, plus some frames for
// temporary use.
uint64_t TablesFor(uint64_t pages) {
  return pages / PagesPer(Level::k2M) + pages / PagesPer(Level::k1G) + 16;
}

// The number of L1's pages that L2 can use as pages of `level`.
uint64_t FittingPages(const GpaSpace& memory, Level level) {
  const uint64_t tables = TablesFor(memory.pages());
  if (memory.pages() <= tables) return 0;
  return (memory.pages() - tables) / PagesPer(level) * PagesPer(level);
}

// Whether L1 refused an operation because it is not allowed now or because no
// memory is free.
bool IsRefusal(const absl::Status& status) {
  return status.code() == absl::StatusCode::kFailedPrecondition;
}

}  // namespace

absl::StatusOr<std::unique_ptr<L2Program>> L2Program::Start(
    L1Cpu& cpu, const GpaSpace& memory, const L2ProgramOptions& options) {
  L2ProgramOptions fitting = options;
  // Small pages may be merged into one of 2 MiB, so 2 MiB must fit.
  const uint64_t fits = FittingPages(memory, Level::k2M);
  const uint64_t wanted = std::max(options.pages, uint64_t{kEntriesPerTable});
  if (fits < wanted || wanted % kEntriesPerTable != 0) {
    return absl::InvalidArgumentError(Format(
        "an L2 guest of %d pages in %d pages of L1: %d can be had; a multiple "
        "of %d, and not 0",
        wanted, memory.pages(), fits, kEntriesPerTable));
  }
  uint64_t pages = options.pages == 0 ? fits : options.pages;
  if (options.hypervisor.max_page == Level::k1G) {
    const uint64_t in_1g =
        options.pages == 0 ? FittingPages(memory, Level::k1G) : options.pages;
    if (in_1g != 0 && in_1g % PagesPer(Level::k1G) == 0) {
      pages = in_1g;
    } else {
      fitting.hypervisor.max_page = Level::k2M;
    }
  }
  auto program = absl::WrapUnique(new L2Program(cpu, memory, fitting, pages));
  if (absl::Status s = program->hypervisor_.Boot(); !s.ok()) return s;
  return program;
}

L2Program::L2Program(L1Cpu& cpu, const GpaSpace& memory,
                     const L2ProgramOptions& options, uint64_t pages)
    : options_(options),
      pages_(pages),
      hypervisor_(cpu, memory, options.hypervisor),
      random_(MixBits(options.seed)) {}

absl::Status L2Program::Access(const GuestAccess& access, uint64_t* word) {
  if (absl::Status s = Housekeeping(); !s.ok()) return s;
  const Gfn gfn((access.address_bytes >> kPageShift) % pages_);
  const Gpa nested =
      ToGpa(gfn) + (access.address_bytes & kPageMask & ~uint64_t{7});
  const absl::Status status =
      hypervisor_.AccessGranting(nested, access.kind, word);
  if (!status.ok() || options_.check == ReadCheck::kNo) return status;
  if (access.kind != AccessKind::kWrite) {
    return contents_.Check("L2", nested.value(), *word);
  }
  contents_.Write(nested.value(), *word);
  written_.insert(gfn);
  return absl::OkStatus();
}

absl::Status L2Program::Housekeeping() {
  if (Due(options_.accesses_per_unmap)) {
    const Gpa page = AnyPage();
    if (absl::Status s = hypervisor_.Unmap(page, kPageSize); !s.ok()) return s;
    contents_.ErasePage(page.value());
    written_.erase(ToGfn(page));
  }
  if (Due(options_.accesses_per_protect)) {
    using Rights = L1Hypervisor::Rights;
    const uint64_t kinds = options_.hypervisor.exec_only ? 3 : 2;
    constexpr Rights kRights[] = {Rights::kReadExec, Rights::kRead,
                                  Rights::kExec};
    const Rights rights = kRights[UniformBelow(random_, kinds)];
    if (absl::Status s = hypervisor_.Protect(AnyPage(), kPageSize, rights);
        !s.ok()) {
      return s;
    }
  }
  if (Due(options_.accesses_per_remap)) {
    if (absl::Status s = hypervisor_.Remap(AnyPage()); !s.ok()) return s;
  }
  if (Due(options_.accesses_per_promote)) {
    // Merging requires that all small pages of the region grant the same
    // rights.
    const Gpa page = ToGpa(RoundDown(ToGfn(AnyPage()), Level::k2M));
    absl::Status s = hypervisor_.Protect(page, BytesPer(Level::k2M),
                                         L1Hypervisor::Rights::kAll);
    if (s.ok()) s = hypervisor_.Promote(page);
    if (!s.ok() && !IsRefusal(s)) return s;
  }
  if (Due(options_.accesses_per_demote)) {
    absl::Status s = hypervisor_.Demote(AnyPage());
    if (!s.ok() && !IsRefusal(s)) return s;
  }
  if (Due(options_.accesses_per_take_dirty)) return TakeDirty();
  return absl::OkStatus();
}

absl::Status L2Program::TakeDirty() {
  absl::StatusOr<std::vector<Gfn>> dirty = hypervisor_.TakeDirty();
  if (!dirty.ok()) return dirty.status();
  for (const Gfn gfn : written_) {
    if (!std::binary_search(dirty->begin(), dirty->end(), gfn)) {
      return absl::DataLossError(Format(
          "L2 wrote to nested gfn 0x%x, and L1's dirty log does not have it",
          gfn.value()));
    }
  }
  written_.clear();
  return absl::OkStatus();
}

absl::Status L2Program::Verify() {
  for (const auto& [address, expected] : contents_.words()) {
    uint64_t word = 0;
    absl::Status status =
        hypervisor_.AccessGranting(Gpa(address), AccessKind::kRead, &word);
    if (status.ok()) status = contents_.Check("L2", address, word);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace mmu
