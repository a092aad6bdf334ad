#include "bench/access_tracking_perf.h"

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "bench/scenario.h"
#include "mmu_core/aging/aging.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/vm/jobs/generation_scan.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/working_set/working_set_snapshot.h"

namespace mmu::bench {
namespace {

constexpr uint64_t kFirstGpa = uint64_t{1} << 30;

// One run, step by step.
class Run {
 public:
  Run(const AccessTrackingPerfOptions& options, std::ostream& out)
      : options_(options), out_(out) {}

  absl::Status All() {
    if (absl::Status status = CreateVm(); !status.ok()) return status;
    VcpuThreads vcpus(*vm_);
    Pass(vcpus, "Populating memory", AccessKind::kWrite);
    Pass(vcpus, "Writing to populated memory", AccessKind::kWrite);
    Pass(vcpus, "Reading from populated memory", AccessKind::kRead);
    absl::Status status = vcpus.status();
    if (status.ok()) status = MarkIdle();
    if (!status.ok()) return status;
    Pass(vcpus, "Writing to idle memory", AccessKind::kWrite);
    status = vcpus.status();
    if (status.ok()) status = MarkIdle();
    if (!status.ok()) return status;
    Pass(vcpus, "Reading from idle memory", AccessKind::kRead);
    return vcpus.status();
  }

 private:
  // Mapped pages, before they are marked idle.
  struct Found {
    uint64_t young_pages = 0;
    uint64_t old_pages = 0;
  };

  absl::Status CreateVm() {
    bytes_ = options_.bytes_per_vcpu * (options_.overlap ? 1 : options_.vcpus);
    VmConfig config;
    config.vcpu_count = options_.vcpus;
    MemslotConfig slot;
    slot.gpa = Gpa(kFirstGpa);
    slot.size_bytes = bytes_;
    slot.backing = options_.backing;
    slot.host_page_level = options_.host_page_level;
    config.memslots.push_back(slot);
    absl::StatusOr<std::unique_ptr<Vm>> vm = Vm::Create(config);
    if (!vm.ok()) return vm.status();
    vm_ = *std::move(vm);
    out_ << absl::StrFormat("guest physical test memory: [0x%x, 0x%x)\n\n",
                            kFirstGpa, kFirstGpa + bytes_);
    return absl::OkStatus();
  }

  void Pass(VcpuThreads& vcpus, const char* label, AccessKind kind) {
    Print(label, vcpus.Run([this, kind](Vcpu& vcpu) {
      const uint64_t first =
          kFirstGpa +
          (options_.overlap ? 0 : options_.bytes_per_vcpu * vcpu.index());
      for (uint64_t at = 0; at < options_.bytes_per_vcpu; at += kPageSize) {
        uint64_t word = at;
        absl::Status status = AccessOrError(vcpu, Gpa(first + at), kind, &word);
        if (!status.ok()) return status;
      }
      return absl::OkStatus();
    }));
  }

  absl::StatusOr<Found> Age(uint64_t pages) {
    const absl::StatusOr<AgeResult> aged =
        vm_->Age(GfnRange::Of(ToGfn(Gpa(kFirstGpa)), pages),
                 AgeMode::kTestAndClear, nullptr);
    if (!aged.ok()) return aged.status();
    return Found{aged->young_page_count, aged->old_page_count};
  }

  absl::StatusOr<Found> MakeGeneration() {
    const absl::StatusOr<std::unique_ptr<GenerationScan>> scan =
        vm_->BeginGeneration({});
    if (!scan.ok()) return scan.status();
    while (!(*scan)->done()) {
      if (absl::Status status = (*scan)->Next(); !status.ok()) return status;
    }
    const GenerationTotals& totals = (*scan)->totals();
    return Found{totals.young_pages, totals.mapped_pages - totals.young_pages};
  }

  absl::Status MarkIdle() {
    const uint64_t pages = bytes_ >> kPageShift;
    absl::StatusOr<Found> found;
    Print(options_.generations ? "Mark memory idle (lru_gen)"
                               : "Mark memory idle (page_idle)",
          Timed([&] {
            found = options_.generations ? MakeGeneration() : Age(pages);
          }));
    if (!found.ok()) return found.status();
    const uint64_t no_pfn = pages - found->young_pages - found->old_pages;
    if (no_pfn >= (pages + 99) / 100) {
      return absl::InternalError(absl::StrFormat(
          "access_tracking_perf: %d of %d pages have no pfn", no_pfn, pages));
    }
    const uint64_t still_idle = found->old_pages;
    if (still_idle < (pages + 9) / 10) return absl::OkStatus();
    const std::string finding = absl::StrFormat(
        "access_tracking_perf: %d of %d pages are still idle after an access",
        still_idle, pages);
    if (options_.warn <= 0) return absl::InternalError(finding);
    out_ << "warning: " << finding << "\n";
    return absl::OkStatus();
  }

  void Print(const char* label, absl::Duration duration) {
    out_ << absl::StrFormat("%-30s: ", label) << Seconds(duration) << "\n"
         << std::flush;
  }

  const AccessTrackingPerfOptions& options_;
  std::ostream& out_;
  std::unique_ptr<Vm> vm_;
  uint64_t bytes_ = 0;
};

}  // namespace

const char kAccessTrackingPerfHelp[] =
    "mmu_bench --scenario access_tracking_perf [OPTIONS]\n"
    "\n"
    "The steps of KVM's access_tracking_perf_test, with its options and its\n"
    "lines. -g stands for what KVM's test finds out by itself: whether the\n"
    "machine has MGLRU.\n"
    "\n"
    "  -b SIZE     memory per vCPU, as 512M or 1G (1G)\n"
    "  -g          a generation of the working set marks memory idle\n"
    "              (lru_gen); without it the ageing of pages does (page_idle)\n"
    "  -m MODE     guest mode; 0, which is the only one\n"
    "  -o          all vCPUs share one range\n"
    "  -s BACKING  anonymous, anonymous_thp, anonymous_hugetlb_2mb,\n"
    "              anonymous_hugetlb_1gb, shmem, metadata_2mb, metadata_1gb\n"
    "              (anonymous)\n"
    "  -v N        vCPUs (1)\n"
    "  -w N        when 10 % of the pages are idle though all were accessed:\n"
    "              warn if N is above 0, else fail (-1)\n"
    "\n"
    "Aging does not flush, so what a vCPU's TLB still translates is accessed\n"
    "without being noticed: memory must be large against the TLB.\n";

absl::StatusOr<AccessTrackingPerfOptions> ParseAccessTrackingPerf(
    absl::Span<const std::string> args) {
  AccessTrackingPerfOptions o;
  int mode = 0;
  const absl::Status status =
      ParseScenario("access_tracking_perf", args,
                    {
                        SizeOption('b', kPageSize, &o.bytes_per_vcpu),
                        FlagOption('g', &o.generations),
                        FlagOption('h', &o.help),
                        NumberOption('m', 0, 0, &mode),
                        FlagOption('o', &o.overlap),
                        BackingOption(&o.backing, &o.host_page_level),
                        NumberOption('v', 1, kMaxVcpus, &o.vcpus),
                        NumberOption('w', -1, 1, &o.warn),
                    });
  if (!status.ok()) return status;
  return o;
}

absl::Status RunAccessTrackingPerf(const AccessTrackingPerfOptions& options,
                                   std::ostream& out) {
  return Run(options, out).All();
}

}  // namespace mmu::bench
