#include "bench/dirty_log_perf.h"

#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <random>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "mmu_core/base/access.h"
#include "mmu_core/vm/dirty_logging.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu::bench {
namespace {

std::string Seconds(absl::Duration duration) {
  const int64_t nanos = absl::ToInt64Nanoseconds(duration);
  return absl::StrFormat("%d.%09ds", nanos / 1'000'000'000,
                         nanos % 1'000'000'000);
}

template <typename Fn>
absl::Duration Timed(Fn fn) {
  const absl::Time begin = absl::Now();
  fn();
  return absl::Now() - begin;
}

// The vCPUs' threads. Each makes one pass over its pages when told to, and
// remembers which pages it wrote in it.
class Guest {
 public:
  Guest(Vm& vm, const DirtyLogPerfOptions& options)
      : vm_(vm),
        options_(options),
        pages_(options.bytes_per_vcpu / kPageSize),
        written_(options.vcpus) {
    for (int i = 0; i < options.vcpus; ++i) {
      threads_.emplace_back([this, i] { Run(i); });
    }
  }
  ~Guest() {
    {
      std::lock_guard<std::mutex> lock(mu_);
      quit_ = true;
      free_running_.store(false);
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  // One pass by every vCPU; `write_percent` of the accesses write.
  absl::Duration Pass(uint32_t write_percent) {
    return Timed([&] {
      std::unique_lock<std::mutex> lock(mu_);
      write_percent_ = write_percent;
      done_ = 0;
      ++pass_;
      changed_.notify_all();
      changed_.wait(lock, [&] { return done_ == options_.vcpus; });
    });
  }

  // Passes follow each other until FinishFreeRun.
  void StartFreeRun() {
    std::lock_guard<std::mutex> lock(mu_);
    free_running_.store(true);
    done_ = 0;
    ++pass_;
    changed_.notify_all();
  }
  void FinishFreeRun() {
    std::unique_lock<std::mutex> lock(mu_);
    free_running_.store(false);
    changed_.wait(lock, [&] { return done_ == options_.vcpus; });
  }

  // No access failed. Call between passes.
  absl::Status status() const {
    std::lock_guard<std::mutex> lock(mu_);
    return status_;
  }
  // Whether the last pass wrote page `page` of all memory. Between passes.
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
  void Pin(int vcpu) {
    if (options_.cpus.empty()) return;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(options_.cpus[vcpu], &set);
    if (pthread_setaffinity_np(pthread_self(), sizeof(set), &set) != 0) {
      std::lock_guard<std::mutex> lock(mu_);
      status_ = absl::InvalidArgumentError(
          absl::StrCat("dirty_log_perf: -c ", options_.cpus[vcpu],
                       ": must be a processor that this process may use"));
    }
  }

  void Run(int vcpu) {
    Pin(vcpu);
    std::mt19937_64 random(options_.seed + static_cast<uint64_t>(vcpu));
    for (uint64_t pass = 1;; ++pass) {
      uint32_t write_percent;
      {
        std::unique_lock<std::mutex> lock(mu_);
        changed_.wait(lock, [&] { return quit_ || pass_ >= pass; });
        if (quit_) return;
        write_percent = write_percent_;
      }
      absl::Status status;
      do {
        status = OnePass(vcpu, write_percent, random);
      } while (status.ok() && free_running_.load());
      std::lock_guard<std::mutex> lock(mu_);
      if (!status.ok()) status_ = status;
      ++done_;
      changed_.notify_all();
    }
  }

  absl::Status OnePass(int index, uint32_t write_percent,
                       std::mt19937_64& random) {
    Vcpu& vcpu = *vm_.state().vcpus[index];
    std::vector<bool>& written = written_[index];
    written.assign(pages_, false);
    const uint64_t first = ToGfn(Gpa(options_.offset_bytes)).value() +
                           (options_.overlap ? 0 : pages_ * index);
    vcpu.EnterGuest();
    absl::Status status;
    for (uint64_t i = 0; i < pages_; ++i) {
      const uint64_t page = options_.random_access ? random() % pages_ : i;
      const bool write = write_percent == 100 || random() % 100 < write_percent;
      uint64_t word = i;
      const AccessOutcome outcome =
          vcpu.Access(ToGpa(Gfn(first + page)),
                      write ? AccessKind::kWrite : AccessKind::kRead, &word);
      if (outcome != AccessOutcome::kDone) {
        status = outcome == AccessOutcome::kError
                     ? vcpu.status()
                     : absl::InternalError("an access left guest memory");
        break;
      }
      if (write) written[page] = true;
    }
    vcpu.ExitGuest();
    return status;
  }

  Vm& vm_;
  const DirtyLogPerfOptions& options_;
  const uint64_t pages_;  // per vCPU
  std::vector<std::vector<bool>> written_;
  std::atomic<bool> free_running_{false};

  mutable std::mutex mu_;
  std::condition_variable changed_;
  uint64_t pass_ = 0;
  uint32_t write_percent_ = 100;
  int done_ = 0;
  bool quit_ = false;
  absl::Status status_;

  std::vector<std::thread> threads_;
};

// One run, step by step.
class Run {
 public:
  Run(const DirtyLogPerfOptions& options, std::ostream& out)
      : options_(options), out_(out) {}

  absl::Status All() {
    if (absl::Status status = CreateVm(); !status.ok()) return status;
    Guest guest(*vm_, options_);
    Print("Populate memory time: ", guest.Pass(100));
    if (absl::Status status = guest.status(); !status.ok()) return status;

    absl::Status status;
    const DirtyLogConfig config = LogConfig();
    Print("Enabling dirty logging time: ",
          Timed([&] { status = vm_->StartDirtyLog(config, nullptr); }));
    if (!status.ok()) return status;
    out_ << "\n";

    for (uint64_t i = 1; i <= options_.iterations; ++i) {
      Print(absl::StrCat("Iteration ", i, " dirty memory time: "),
            guest.Pass(options_.write_percent));
      if (status = guest.status(); !status.ok()) return status;
      if (status = Harvest(i, guest); !status.ok()) return status;
      out_ << std::flush;
    }

    if (options_.run_while_disabling) guest.StartFreeRun();
    Print("Disabling dirty logging time: ", Timed([&] {
            status = vm_->StopDirtyLog({}, Vm::Recover::kYes,
                                       Vm::Unacked::kDiscard, nullptr)
                         .status();
          }));
    if (options_.run_while_disabling) guest.FinishFreeRun();
    if (!status.ok()) return status;
    if (status = guest.status(); !status.ok()) return status;
    PrintAverage("Get dirty log", get_total_);
    if (!options_.legacy_get) PrintAverage("Clear dirty log", clear_total_);
    return absl::OkStatus();
  }

 private:
  absl::Status CreateVm() {
    VmConfig config;
    config.vcpu_count = options_.vcpus;
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
    if (status = CheckNothingLost(logs, guest); !status.ok()) return status;
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

  absl::Status CheckNothingLost(const std::vector<std::vector<uint64_t>>& logs,
                                const Guest& guest) const {
    for (uint64_t page = 0; page < slot_pages_ * options_.slots; ++page) {
      const uint64_t in_slot = page % slot_pages_;
      const uint64_t word = logs[page / slot_pages_][in_slot / 64];
      if (guest.Wrote(page) && (word >> (in_slot % 64) & 1) == 0) {
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
  absl::Duration get_total_, clear_total_;
};

}  // namespace

absl::Status RunDirtyLogPerf(const DirtyLogPerfOptions& options,
                             std::ostream& out) {
  return Run(options, out).All();
}

}  // namespace mmu::bench
