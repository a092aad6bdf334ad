#include "mmu_core/guest/kernel/kernel_cpu.h"

#include <algorithm>
#include <cstddef>
#include <iterator>

#include "mmu_core/base/check.h"

namespace mmu {

void KernelCpu::Start(const GuestProcess& process) {
  MMU_CHECK(running_ == 0);
  cpu_.EnablePaging(geometry_, process.tables.root());
  Run(process, Cr3Load::kFlush);
}

void KernelCpu::Run(const GuestProcess& process, Cr3Load how) {
  running_ = process.id;
  loaded_pdptes_ = process.tables.pdpte_changes();
  auto it = std::find_if(
      contexts_.begin(), contexts_.end(),
      [&](const Context& context) { return context.process == process.id; });
  if (!geometry_.HasPcids()) {
    contexts_.clear();
    it = contexts_.end();
    how = Cr3Load::kFlush;
  }
  bool begins_anew = false;
  if (it == contexts_.end()) {
    if (contexts_.size() == kPcids) {
      contexts_.clear();
      begins_anew = true;
      how = Cr3Load::kFlush;
    }
    contexts_.push_back(
        {.process = process.id, .tlb_gen = 0, .root = process.tables.root()});
    it = std::prev(contexts_.end());
  } else if (it->tlb_gen != process.tlb_gen) {
    how = Cr3Load::kFlush;
  }
  it->tlb_gen = process.tlb_gen;
  LoadCr3(*it, static_cast<Pcid>(FirstPcid() + (it - contexts_.begin())), how);
  if (!begins_anew) return;
  // Only after the load: before, the processor might cache more of the old
  // address space under its PCID.
  cpu_.InvalidatePcid(Invpcid::kAllContexts, 0, Gva(0));
  ++stats_.invpcids;
}

void KernelCpu::Stop() {
  running_ = 0;
  contexts_.clear();
}

bool KernelCpu::HasCached(int process) const {
  return std::any_of(
      contexts_.begin(), contexts_.end(),
      [&](const Context& context) { return context.process == process; });
}

void KernelCpu::Invalidate(const GuestProcess& process,
                           const TlbInvalidation& what) {
  Invalidate(process.id, process.tlb_gen, what);
}

void KernelCpu::Invalidate(int process, uint64_t tlb_gen,
                           const TlbInvalidation& what) {
  for (size_t i = 0; i < contexts_.size(); ++i) {
    Context& context = contexts_[i];
    if (context.process != process) continue;
    const Pcid pcid = static_cast<Pcid>(FirstPcid() + i);
    const bool runs = process == running_;
    if (runs && what.everything()) {
      LoadCr3(context, pcid, Cr3Load::kFlush);
    } else if (runs) {
      for (const Gva gva : what.pages()) cpu_.Invlpg(gva);
      stats_.invlpgs += what.pages().size();
    } else if (what.everything()) {
      cpu_.InvalidatePcid(Invpcid::kSingleContext, pcid, Gva(0));
      ++stats_.invpcids;
    } else {
      for (const Gva gva : what.pages()) {
        cpu_.InvalidatePcid(Invpcid::kAddress, pcid, gva);
      }
      stats_.invpcids += what.pages().size();
    }
    // The CPU has missed none of the invalidations before.
    MMU_CHECK(context.tlb_gen + 1 == tlb_gen);
    context.tlb_gen = tlb_gen;
  }
}

void KernelCpu::Interrupt(const GuestProcess& process,
                          const TlbInvalidation& what,
                          std::atomic<int>* unacknowledged) {
  MMU_CHECK(running_ != 0);
  MutexLock lock(mu_);
  requests_.push_back({.process = process.id,
                       .tlb_gen = process.tlb_gen,
                       .what = what,
                       .unacknowledged = unacknowledged});
  interrupted_.store(true, std::memory_order_relaxed);
}

void KernelCpu::TakeThem() {
  std::vector<Request> requests;
  {
    MutexLock lock(mu_);
    requests.swap(requests_);
    interrupted_.store(false, std::memory_order_relaxed);
  }
  for (const Request& request : requests) {
    Invalidate(request.process, request.tlb_gen, request.what);
    ++stats_.interrupts;
    // Whoever sees the acknowledgement sees all accesses that were made before
    // it.
    request.unacknowledged->fetch_sub(1, std::memory_order_release);
  }
}

void KernelCpu::LoadCr3(const Context& context, Pcid pcid, Cr3Load how) {
  if (how == Cr3Load::kFlush) ++stats_.flushes;
  cpu_.LoadCr3(context.root, pcid, how);
}

}  // namespace mmu
