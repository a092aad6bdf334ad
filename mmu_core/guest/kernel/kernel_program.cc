#include "mmu_core/guest/kernel/kernel_program.h"

#include <algorithm>
#include <iterator>
#include <string>

#include "absl/memory/memory.h"
#include "mmu_core/base/format.h"

namespace mmu {
namespace {

std::string NameOf(int process) { return Format("process %d", process); }

}  // namespace

absl::StatusOr<std::unique_ptr<KernelProgram>> KernelProgram::Start(
    GuestCpu& cpu, const GpaSpace& memory,
    const KernelProgramOptions& options) {
  constexpr uint64_t kFewest = 16;
  if (options.processes < 1 || options.processes > 64) {
    return absl::InvalidArgumentError(
        Format("%d processes: must be 1 to 64", options.processes));
  }
  const uint64_t fits =
      ProgramLayout::FittingPages(options.kernel, options.processes, memory);
  if (fits < std::max(options.pages, kFewest)) {
    return absl::InvalidArgumentError(Format(
        "%d processes of %d pages do not fit into %d pages of guest memory, %d "
        "pages each do: give the guest more memory or have less processes",
        options.processes, std::max(options.pages, kFewest), memory.pages(),
        fits));
  }
  auto program = absl::WrapUnique(new KernelProgram(
      cpu, memory, options, options.pages == 0 ? fits : options.pages));
  if (absl::Status s = program->kernel_.Boot(); !s.ok()) return s;
  if (absl::Status s = program->CreateProcesses(); !s.ok()) return s;
  return program;
}

KernelProgram::KernelProgram(GuestCpu& cpu, const GpaSpace& memory,
                             const KernelProgramOptions& options,
                             uint64_t pages)
    : options_(options),
      layout_(options.kernel.geometry, pages),
      kernel_(cpu, memory, options.kernel),
      random_(MixBits(options.seed)) {}

absl::Status KernelProgram::CreateProcesses() {
  contents_[kernel_.running()];
  for (int i = 1; i < options_.processes; ++i) {
    absl::StatusOr<int> process = kernel_.CreateProcess();
    if (!process.ok()) return process.status();
    contents_[*process];
  }
  return absl::OkStatus();
}

absl::Status KernelProgram::Access(const GuestAccess& access, uint64_t* word) {
  if (absl::Status s = Housekeeping(); !s.ok()) return s;
  const Gva gva =
      GvaOf((access.address_bytes >> kPageShift) % program_pages()) +
      (access.address_bytes & kPageMask & ~uint64_t{7});
  absl::Status status = kernel_.Access(gva, access.kind, word);
  if (status.code() == absl::StatusCode::kPermissionDenied) {
    // The program handles the signal: it asks for write permission again.
    status = kernel_.Protect(Gva(gva.value() & ~kPageMask), kPageSize,
                             GuestKernel::Writable::kYes);
    if (status.ok()) status = kernel_.Access(gva, access.kind, word);
  }
  if (!status.ok() || options_.check == ReadCheck::kNo) return status;
  ReferenceMemory& contents = contents_.at(kernel_.running());
  if (access.kind != AccessKind::kWrite) {
    return contents.Check(NameOf(kernel_.running()), gva.value(), *word);
  }
  contents.Write(gva.value(), *word);
  return absl::OkStatus();
}

absl::Status KernelProgram::Housekeeping() {
  if (Due(options_.accesses_per_switch)) {
    if (absl::Status s = SwitchToAny(); !s.ok()) return s;
  }
  if (Due(options_.accesses_per_fork)) {
    if (absl::Status s = Fork(); !s.ok()) return s;
  }
  if (Due(options_.accesses_per_unmap)) {
    const Gva gva = AnyPage();
    if (absl::Status s = kernel_.Unmap(gva, kPageSize); !s.ok()) return s;
    contents_.at(kernel_.running()).ErasePage(gva.value());
  }
  if (Due(options_.accesses_per_protect)) {
    return kernel_.Protect(AnyPage(), kPageSize, GuestKernel::Writable::kNo);
  }
  return absl::OkStatus();
}

absl::Status KernelProgram::SwitchToAny() {
  const int process = AnyProcess();
  return kernel_.SwitchTo(process, UniformBelow(random_, 2) == 0
                                       ? Cr3Load::kKeep
                                       : Cr3Load::kFlush);
}

absl::Status KernelProgram::Fork() {
  if (options_.processes == 1) return absl::OkStatus();
  if (contents_.size() == static_cast<size_t>(options_.processes)) {
    int victim = AnyProcess();
    while (victim == kernel_.running()) victim = AnyProcess();
    if (absl::Status s = kernel_.Exit(victim); !s.ok()) return s;
    contents_.erase(victim);
  }
  absl::StatusOr<int> child = kernel_.Fork();
  if (!child.ok()) return child.status();
  contents_[*child] = contents_.at(kernel_.running());
  return absl::OkStatus();
}

int KernelProgram::AnyProcess() {
  auto it = contents_.begin();
  std::advance(it, UniformBelow(random_, contents_.size()));
  return it->first;
}

absl::Status KernelProgram::Verify() {
  for (const auto& [process, contents] : contents_) {
    if (absl::Status s = kernel_.SwitchTo(process, Cr3Load::kKeep); !s.ok()) {
      return s;
    }
    for (const auto& [address, expected] : contents.words()) {
      uint64_t word = 0;
      absl::Status status =
          kernel_.Access(Gva(address), AccessKind::kRead, &word);
      if (!status.ok()) return status;
      status = contents.Check(NameOf(process), address, word);
      if (!status.ok()) return status;
    }
  }
  return absl::OkStatus();
}

}  // namespace mmu
