#include "bench/dirty_log_perf.h"

#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <memory>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "bench/l2_guests.h"
#include "bench/scenario.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/vm/logging/kvm_dirty_log.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu::bench {
namespace {

using ::mmu::testing::StartLog;
using ::mmu::testing::StopLog;

// Makes the accesses of all vCPUs, and remembers which pages they wrote in the
// last pass.
class Guest {
 public:
  // `l2`: if not null, its L2 guests make the accesses.
  Guest(Vm& vm, L2Guests* l2, const DirtyLogPerfOptions& options)
      : options_(options),
        l2_(l2),
        pages_(options.bytes_per_vcpu / kPageSize),
        written_(options.vcpus),
        threads_(vm) {
    for (int i = 0; i < options.vcpus; ++i) {
      random_.emplace_back(options.seed + static_cast<uint64_t>(i));
    }
    if (!options.cpus.empty()) {
      threads_.Run([this](Vcpu& vcpu) { return Pin(vcpu.index()); });
    }
  }

  // Each vCPU makes one pass. `write_percent` of the accesses are writes.
  absl::Duration Pass(uint32_t write_percent) {
    return threads_.Run([this, write_percent](Vcpu& vcpu) {
      return OnePass(vcpu, write_percent);
    });
  }

  // The vCPUs make one pass after the other until FinishFreeRun.
  void StartFreeRun() {
    free_running_.store(true);
    threads_.Start([this](Vcpu& vcpu) {
      absl::Status status;
      do {
        status = OnePass(vcpu, options_.write_percent);
      } while (status.ok() && free_running_.load());
      return status;
    });
  }
  void FinishFreeRun() {
    free_running_.store(false);
    threads_.Wait();
  }

  // The first error of an access; OK if none failed. To be called between
  // passes.
  absl::Status status() const { return threads_.status(); }
  // Whether the last pass wrote page `page`, counted through the memory of all
  // vCPUs. To be called between passes.
  bool Wrote(uint64_t page) const {
    if (options_.overlap) {
      for (const std::vector<bool>& pages : written_) {
        if (pages[page]) return true;
      }
      return false;
    }
    return written_[page / pages_][page % pages_];
  }

 private:
  absl::Status Pin(int vcpu) const {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(options_.cpus[vcpu], &set);
    if (pthread_setaffinity_np(pthread_self(), sizeof(set), &set) == 0) {
      return absl::OkStatus();
    }
    return absl::InvalidArgumentError(
        absl::StrCat("dirty_log_perf: -c ", options_.cpus[vcpu],
                     ": must be a processor that this process may use"));
  }

  absl::Status OnePass(Vcpu& vcpu, uint32_t write_percent) {
    const int index = vcpu.index();
    std::mt19937_64& random = random_[index];
    std::vector<bool>& written = written_[index];
    written.assign(pages_, false);
    const uint64_t first = ToGfn(Gpa(options_.offset_bytes)).value() +
                           (options_.overlap ? 0 : pages_ * index);
    for (uint64_t i = 0; i < pages_; ++i) {
      const uint64_t page = options_.random_access ? random() % pages_ : i;
      const bool write = write_percent == 100 || random() % 100 < write_percent;
      uint64_t word = i;
      const Gpa gpa = ToGpa(Gfn(first + page));
      const AccessKind kind = write ? AccessKind::kWrite : AccessKind::kRead;
      absl::Status status = l2_ == nullptr
                                ? AccessOrError(vcpu, gpa, kind, &word)
                                : l2_->Access(vcpu, gpa, kind, &word);
      if (!status.ok()) return status;
      if (write) written[page] = true;
    }
    return absl::OkStatus();
  }

  const DirtyLogPerfOptions& options_;
  L2Guests* const l2_;
  const uint64_t pages_;  // per vCPU
  // One element per vCPU. Only the vCPU's thread uses it during a pass.
  std::vector<std::vector<bool>> written_;
  std::vector<std::mt19937_64> random_;
  std::atomic<bool> free_running_{false};
  VcpuThreads threads_;
};

// One run, step by step.
class Run {
 public:
  Run(const DirtyLogPerfOptions& options, std::ostream& out)
      : options_(options), out_(out) {}

  absl::Status All() {
    if (absl::Status status = CreateVm(); !status.ok()) return status;
    std::unique_ptr<L2Guests> l2;
    if (options_.nested) {
      auto entered =
          L2Guests::Enter(*vm_, GfnRange::Of(ToGfn(Gpa(options_.offset_bytes)),
                                             slot_pages_ * options_.slots));
      if (!entered.ok()) return entered.status();
      l2 = *std::move(entered);
    }
    Guest guest(*vm_, l2.get(), options_);
    Print("Populate memory time: ", guest.Pass(100));
    if (absl::Status status = guest.status(); !status.ok()) return status;

    absl::Status status;
    const DirtyLogConfig config = LogConfig();
    times_.enable = Timed([&] { status = StartLog(*vm_, config, nullptr); });
    Print("Enabling dirty logging time: ", times_.enable);
    if (!status.ok()) return status;
    out_ << "\n";

    for (uint64_t i = 1; i <= options_.iterations; ++i) {
      const absl::Duration dirty = guest.Pass(options_.write_percent);
      if (i == 1) times_.first_dirty = dirty;
      Print(absl::StrCat("Iteration ", i, " dirty memory time: "), dirty);
      if (status = guest.status(); !status.ok()) return status;
      if (status = Harvest(i, guest); !status.ok()) return status;
      out_ << std::flush;
    }

    if (options_.run_while_disabling) guest.StartFreeRun();
    Print("Disabling dirty logging time: ", Timed([&] {
            status = StopLog(*vm_, RecoverOnStop::kYes, Undelivered::kDiscard,
                             nullptr)
                         .status();
          }));
    if (options_.run_while_disabling) guest.FinishFreeRun();
    if (!status.ok()) return status;
    if (status = guest.status(); !status.ok()) return status;
    PrintAverage("Get dirty log", get_total_);
    if (!options_.legacy_get) PrintAverage("Clear dirty log", clear_total_);
    return absl::OkStatus();
  }

  const DirtyLogPerfTimes& times() const { return times_; }

 private:
  absl::Status CreateVm() {
    VmConfig config;
    config.vcpu_count = options_.vcpus;
    if (options_.nested) {
      config.mmu = MmuMode::kNested;
      MemslotConfig tables;  // L1's tables; not logged
      tables.slot = options_.slots;
      tables.size_bytes = L2Guests::kTableBytes;
      config.memslots.push_back(tables);
    }
    const uint64_t bytes =
        options_.bytes_per_vcpu * (options_.overlap ? 1 : options_.vcpus);
    slot_pages_ = bytes / kPageSize / options_.slots;
    for (uint32_t i = 0; i < options_.slots; ++i) {
      MemslotConfig slot;
      slot.slot = i;
      slot.gpa = Gpa(options_.offset_bytes + i * slot_pages_ * kPageSize);
      slot.size_bytes = slot_pages_ * kPageSize;
      slot.backing = options_.backing;
      slot.host_page_level = options_.host_page_level;
      config.memslots.push_back(slot);
    }
    absl::StatusOr<std::unique_ptr<Vm>> vm = Vm::Create(config);
    if (!vm.ok()) return vm.status();
    vm_ = *std::move(vm);
    out_ << "Test iterations: " << options_.iterations << "\n"
         << absl::StrFormat("guest physical test memory: [0x%x, 0x%x)\n",
                            options_.offset_bytes,
                            options_.offset_bytes + bytes);
    return absl::OkStatus();
  }

  DirtyLogConfig LogConfig() const {
    DirtyLogConfig config;
    config.initially_set =
        options_.legacy_get ? InitiallySet::kNo : InitiallySet::kYes;
    config.split = !options_.eager_page_split ? SplitPolicy::kNone
                   : options_.legacy_get      ? SplitPolicy::kEager
                                              : SplitPolicy::kOnClear;
    return config;
  }

  absl::Status Harvest(uint64_t iteration, const Guest& guest) {
    std::vector<std::vector<uint64_t>> logs(options_.slots);
    absl::Status status;
    const absl::Duration get = Timed([&] {
      for (uint32_t slot = 0; slot < options_.slots && status.ok(); ++slot) {
        absl::StatusOr<std::vector<uint64_t>> log =
            options_.legacy_get
                ? GetAndClearDirtyLog(vm_->state(), slot, nullptr)
                : CopyDirtyLog(vm_->state(), slot);
        if (log.ok()) logs[slot] = *std::move(log);
        status = log.status();
      }
    });
    if (!status.ok()) return status;
    get_total_ += get;
    Print(absl::StrCat("Iteration ", iteration, " get dirty log time: "), get);
    if (status = CountPages(logs, guest); !status.ok()) return status;
    if (options_.legacy_get) return absl::OkStatus();

    const absl::Duration clear = Timed([&] {
      for (uint32_t slot = 0; slot < options_.slots && status.ok(); ++slot) {
        status =
            ClearBitmap(vm_->state(), slot, 0, slot_pages_, logs[slot], nullptr)
                .status();
      }
    });
    if (!status.ok()) return status;
    clear_total_ += clear;
    Print(absl::StrCat("Iteration ", iteration, " clear dirty log time: "),
          clear);
    return absl::OkStatus();
  }

  // Counts the pages that were written and those in the logs. Returns an error
  // if one was written and is in no log.
  absl::Status CountPages(const std::vector<std::vector<uint64_t>>& logs,
                          const Guest& guest) {
    for (uint64_t page = 0; page < slot_pages_ * options_.slots; ++page) {
      const uint64_t in_slot = page % slot_pages_;
      const uint64_t word = logs[page / slot_pages_][in_slot / 64];
      const bool written = guest.Wrote(page);
      const bool logged = (word >> (in_slot % 64) & 1) != 0;
      times_.pages_written += written ? 1 : 0;
      times_.pages_logged += logged ? 1 : 0;
      if (written && !logged) {
        return absl::DataLossError(absl::StrCat(
            "page ", page, " was written but is not in the dirty log"));
      }
    }
    return absl::OkStatus();
  }

  void Print(const std::string& label, absl::Duration duration) {
    out_ << label << Seconds(duration) << "\n";
  }
  void PrintAverage(const std::string& what, absl::Duration total) {
    out_ << what << " over " << options_.iterations << " iterations took "
         << Seconds(total) << ". (Avg "
         << Seconds(total / static_cast<int64_t>(options_.iterations))
         << "/iteration)\n";
  }

  const DirtyLogPerfOptions& options_;
  std::ostream& out_;
  std::unique_ptr<Vm> vm_;
  uint64_t slot_pages_ = 0;
  DirtyLogPerfTimes times_;
  absl::Duration get_total_, clear_total_;
};

}  // namespace

absl::Status RunDirtyLogPerf(const DirtyLogPerfOptions& options,
                             std::ostream& out) {
  return MeasureDirtyLogPerf(options, out).status();
}

absl::StatusOr<DirtyLogPerfTimes> MeasureDirtyLogPerf(
    const DirtyLogPerfOptions& options, std::ostream& out) {
  Run run(options, out);
  if (absl::Status status = run.All(); !status.ok()) return status;
  return run.times();
}

}  // namespace mmu::bench
