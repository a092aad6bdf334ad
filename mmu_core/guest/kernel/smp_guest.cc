#include "mmu_core/guest/kernel/smp_guest.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/status/status.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/format.h"
#include "mmu_core/guest/guest_access.h"
#include "mmu_core/guest/random.h"

namespace mmu {

// The programs on one CPU.
class SmpGuest::Program final : public VirtualWorkload {
 public:
  Program(SmpGuest& guest, int cpu)
      : guest_(guest),
        cpu_(cpu),
        kernel_(*guest.kernels_[static_cast<size_t>(cpu)]),
        random_(MixBits(guest.options_.seed * 64 + static_cast<uint64_t>(cpu))),
        here_(guest.Find(kernel_.running())) {
    MMU_CHECK(here_ != nullptr);
  }
  ~Program() override { kernel_.GoOffline(); }

  absl::Status Access(const GuestAccess& access, uint64_t* word) override {
    if (absl::Status s = Housekeeping(); !s.ok()) return s;
    const uint64_t page =
        (access.address_bytes >> kPageShift) % program_pages();
    if (access.kind == AccessKind::kWrite) return Write(page, *word);
    const uint64_t writer =
        access.address_bytes / 8 % static_cast<uint64_t>(options().cpus);
    return Read(page, static_cast<int>(writer), access.kind, word);
  }
  uint64_t program_pages() const override { return guest_.layout_.pages(); }
  absl::Status Verify() override;

 private:
  const SmpGuestOptions& options() const { return guest_.options_; }
  Gva WordAt(uint64_t page, int cpu) const {
    const uint64_t word = options().first_word + static_cast<uint64_t>(cpu);
    return guest_.layout_.GvaOf(page) + word * 8;
  }
  bool Due(uint64_t accesses) {
    return accesses != 0 && UniformBelow(random_, accesses) == 0;
  }
  uint64_t AnyPage() { return UniformBelow(random_, program_pages()); }

  absl::Status Read(uint64_t page, int writer, AccessKind kind, uint64_t* word);
  absl::Status Write(uint64_t page, uint64_t word);
  // Gives the page its write permission back, if no other CPU has it.
  absl::Status Unprotect(uint64_t page);
  // The operations that are due between two accesses.
  absl::Status Housekeeping();
  absl::Status SwitchTo(int process, const Words& words, Cr3Load how);
  absl::Status SwitchToAny();
  absl::Status Fork();
  absl::Status MakeRoom(bool* has_room);
  absl::Status Unmap(uint64_t page, uint64_t pages, uint64_t bytes);
  absl::Status UnmapRegion();
  absl::Status Protect(uint64_t page);

  SmpGuest& guest_;
  const int cpu_;
  GuestKernel& kernel_;
  Rng random_;
  Words here_;  // of the running process
};

absl::StatusOr<std::unique_ptr<SmpGuest>> SmpGuest::Create(
    const GpaSpace& memory, const SmpGuestOptions& options) {
  constexpr uint64_t kFewest = 16;
  constexpr uint64_t kWords = kPageSize / 8;
  if (options.cpus < 1 || options.cpus > 64 || options.processes < 1 ||
      options.first_word + static_cast<uint64_t>(options.cpus) > kWords) {
    return absl::InvalidArgumentError(
        Format("%d CPUs and %d processes, from word %d: there must be at least "
               "one of each, at most 64 CPUs, and a page has %d words",
               options.cpus, options.processes, options.first_word, kWords));
  }
  // CPUs that copy at the same time need frames for it.
  const uint64_t spare = 8 * static_cast<uint64_t>(options.cpus);
  const uint64_t fits = memory.pages() <= spare
                            ? 0
                            : ProgramLayout::FittingPages(
                                  options.kernel, options.processes,
                                  memory.Slice(0, memory.pages() - spare));
  if (fits < std::max(options.pages, kFewest)) {
    return absl::InvalidArgumentError(Format(
        "%d processes of %d pages do not fit into %d pages of guest memory, %d "
        "pages each do",
        options.processes, std::max(options.pages, kFewest), memory.pages(),
        fits));
  }
  return absl::WrapUnique(
      new SmpGuest(memory, options, options.pages == 0 ? fits : options.pages));
}

absl::StatusOr<std::unique_ptr<VirtualWorkload>> SmpGuest::StartCpu(
    int index, GuestCpu& cpu) {
  if (absl::Status s = BootCpu(index, cpu); !s.ok()) return s;
  return std::make_unique<Program>(*this, index);
}

absl::Status SmpGuest::BootCpu(int index, GuestCpu& cpu) {
  std::unique_ptr<GuestKernel>& kernel = kernels_[static_cast<size_t>(index)];
  MMU_CHECK(kernel == nullptr);
  if (index == 0) {
    kernel = std::make_unique<GuestKernel>(cpu, memory_, options_.kernel);
    const absl::Status status = kernel->Boot();
    if (status.ok()) {
      Add(kernel->running(),
          std::make_shared<SharedWords>(options_.cpus, layout_.pages()));
    }
    booted_ = status.ok() ? Booted::kYes : Booted::kFailed;
    return status;
  }
  while (booted_ == Booted::kNotYet) {
    if (!cpu.Relax()) return cpu.status();
  }
  if (booted_ == Booted::kFailed) {
    return absl::CancelledError("the guest's first CPU could not boot");
  }
  kernel = std::make_unique<GuestKernel>(cpu, *kernels_[0]);
  return kernel->Boot();
}

SmpGuest::Words SmpGuest::Find(int process) {
  MutexLock lock(mu_);
  const auto it = processes_.find(process);
  return it == processes_.end() ? nullptr : it->second;
}

void SmpGuest::Add(int process, Words words) {
  MutexLock lock(mu_);
  processes_[process] = std::move(words);
}

void SmpGuest::Remove(int process) {
  MutexLock lock(mu_);
  processes_.erase(process);
}

std::map<int, SmpGuest::Words> SmpGuest::All() {
  MutexLock lock(mu_);
  return processes_;
}

absl::Status SmpGuest::Program::Read(uint64_t page, int writer, AccessKind kind,
                                     uint64_t* word) {
  const SharedWords::Before before = here_->BeginRead(writer, page);
  if (absl::Status s = kernel_.Access(WordAt(page, writer), kind, word);
      !s.ok()) {
    return s;
  }
  return here_->EndRead(before, cpu_, writer, page, *word);
}

absl::Status SmpGuest::Program::Write(uint64_t page, uint64_t word) {
  for (int tries = 0; tries < 2; ++tries) {
    const SharedWords::Before before = here_->BeginWrite(cpu_, page, word);
    uint64_t value = word;
    absl::Status status =
        kernel_.Access(WordAt(page, cpu_), AccessKind::kWrite, &value);
    if (status.ok()) return here_->EndWrite(before, cpu_, page, word);
    here_->WriteDenied(before, cpu_, page);
    if (!absl::IsPermissionDenied(status)) return status;
    // The program handles the signal: it asks for write permission again.
    if (absl::Status s = Unprotect(page); !s.ok()) return s;
  }
  return absl::OkStatus();
}

absl::Status SmpGuest::Program::Unprotect(uint64_t page) {
  if (!here_->TryClaim(page)) return absl::OkStatus();
  here_->SetWritable(page);
  absl::Status status = kernel_.Protect(guest_.layout_.GvaOf(page), kPageSize,
                                        GuestKernel::Writable::kYes);
  here_->Release(page);
  return status;
}

absl::Status SmpGuest::Program::Housekeeping() {
  if (Due(options().accesses_per_switch)) {
    if (absl::Status s = SwitchToAny(); !s.ok()) return s;
  }
  if (Due(options().accesses_per_fork)) {
    if (absl::Status s = Fork(); !s.ok()) return s;
  }
  if (Due(options().accesses_per_unmap)) {
    if (absl::Status s = Unmap(AnyPage(), 1, kPageSize); !s.ok()) return s;
  }
  if (Due(options().accesses_per_clear)) {
    if (absl::Status s = UnmapRegion(); !s.ok()) return s;
  }
  return Due(options().accesses_per_protect) ? Protect(AnyPage())
                                             : absl::OkStatus();
}

absl::Status SmpGuest::Program::SwitchTo(int process, const Words& words,
                                         Cr3Load how) {
  absl::Status status = kernel_.SwitchTo(process, how);
  if (status.ok()) here_ = words;
  // Another CPU may have let it end.
  return absl::IsInvalidArgument(status) ? absl::OkStatus() : status;
}

absl::Status SmpGuest::Program::SwitchToAny() {
  const std::map<int, Words> all = guest_.All();
  auto it = all.begin();
  std::advance(it, UniformBelow(random_, all.size()));
  return SwitchTo(
      it->first, it->second,
      UniformBelow(random_, 2) == 0 ? Cr3Load::kKeep : Cr3Load::kFlush);
}

absl::Status SmpGuest::Program::Fork() {
  if (guest_.forking_.exchange(true)) return absl::OkStatus();
  bool has_room = false;
  absl::Status status = MakeRoom(&has_room);
  if (status.ok() && has_room) {
    Words words = std::make_shared<SharedWords>(*here_);
    const absl::StatusOr<int> child = kernel_.Fork();
    status = child.status();
    if (child.ok()) {
      words->EndFork(*here_);
      guest_.Add(*child, std::move(words));
    }
  }
  guest_.forking_ = false;
  return status;
}

absl::Status SmpGuest::Program::MakeRoom(bool* has_room) {
  const std::map<int, Words> all = guest_.All();
  *has_room = all.size() < static_cast<size_t>(options().processes);
  // Begins with any of them.
  auto it = all.begin();
  std::advance(it, UniformBelow(random_, all.size()));
  for (size_t i = 0; !*has_room && i < all.size(); ++i) {
    const absl::Status status = kernel_.Exit(it->first);
    if (status.ok()) {
      guest_.Remove(it->first);
      *has_room = true;
    } else if (!absl::IsFailedPrecondition(status)) {
      return status;
    }
    if (++it == all.end()) it = all.begin();
  }
  return absl::OkStatus();
}

absl::Status SmpGuest::Program::Unmap(uint64_t page, uint64_t pages,
                                      uint64_t bytes) {
  uint64_t claimed = 0;
  while (claimed < pages && here_->TryClaim(page + claimed)) ++claimed;
  absl::Status status;
  if (claimed == pages) {
    for (uint64_t i = 0; i < pages; ++i) here_->BeginUnmap(page + i);
    status = kernel_.Unmap(guest_.layout_.GvaOf(page), bytes);
    for (uint64_t i = 0; i < pages; ++i) here_->EndUnmap(page + i);
  }
  for (uint64_t i = 0; i < claimed; ++i) here_->Release(page + i);
  return status;
}

absl::Status SmpGuest::Program::UnmapRegion() {
  const ProgramLayout& layout = guest_.layout_;
  const uint64_t per_region = layout.pages_per_region();
  const uint64_t first = UniformBelow(random_, layout.regions()) * per_region;
  return Unmap(first, std::min(per_region, layout.pages() - first),
               per_region * kPageSize);
}

absl::Status SmpGuest::Program::Protect(uint64_t page) {
  if (!here_->TryClaim(page)) return absl::OkStatus();
  // Only a page that is mapped can be protected.
  uint64_t word = 0;
  absl::Status status = Read(page, cpu_, AccessKind::kRead, &word);
  if (status.ok()) {
    status = kernel_.Protect(guest_.layout_.GvaOf(page), kPageSize,
                             GuestKernel::Writable::kNo);
  }
  if (status.ok()) here_->SetReadOnly(page);
  here_->Release(page);
  return status;
}

absl::Status SmpGuest::Program::Verify() {
  for (const auto& [process, words] : guest_.All()) {
    if (absl::Status s = SwitchTo(process, words, Cr3Load::kKeep); !s.ok()) {
      return s;
    }
    if (here_ != words) continue;  // it has ended
    for (uint64_t page = 0; page < program_pages(); ++page) {
      uint64_t word = 0;
      if (absl::Status s = Read(page, cpu_, AccessKind::kRead, &word);
          !s.ok()) {
        return s;
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace mmu
