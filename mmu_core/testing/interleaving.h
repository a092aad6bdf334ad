// Threads that a test moves from hook to hook (base/hooks.h), so that an
// interleaving is a list of steps:
//
//   Interleaving threads;
//   threads.Add("fault", [&] { ... });
//   threads.Add("clear", [&] { ... });
//   threads.RunTo("fault", HookPoint::kExchangeToMark);
//   threads.RunToEnd("clear");
//   threads.RunToEnd("fault");
//
// If a thread does not reach its destination within kPatience (await.h), the
// test ends with a list of the threads' positions.

#ifndef MMU_CORE_TESTING_INTERLEAVING_H_
#define MMU_CORE_TESTING_INTERLEAVING_H_

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "mmu_core/base/hooks.h"

namespace mmu::testing {

// A process can have at most one. Only the thread that made it may call its
// functions; threads that it did not add pass all hooks.
class Interleaving {
 public:
  Interleaving();
  // Lets all threads run to their ends.
  ~Interleaving();
  Interleaving(const Interleaving&) = delete;
  Interleaving& operator=(const Interleaving&) = delete;

  // Adds a thread that stands before its first step.
  void Add(const std::string& name, std::function<void()> body);

  // Lets the thread run until it reaches `point` for the `times`-th time from
  // now, or to its end. All other threads stand meanwhile, except those started
  // by StartTo.
  void RunTo(const std::string& name, HookPoint point, int times = 1);
  void RunToEnd(const std::string& name);

  // Like RunTo, but does not wait for the thread, which may itself have to wait
  // for another thread. Follow with WaitUntilThere or WaitForEnd.
  void StartTo(const std::string& name, HookPoint point);
  void WaitUntilThere(const std::string& name);
  void Start(const std::string& name);
  void WaitForEnd(const std::string& name);
  bool HasEnded(const std::string& name) const;
  // For a thread that has to wait: gives it the time to end if it does not.
  bool EndsSoon(const std::string& name) const;

  // The hooks that `name` has passed so far, in order, including the one at
  // which it stands.
  std::vector<HookPoint> Trace(const std::string& name) const;

 private:
  struct Actor;

  static void OnHook(HookPoint point);
  Actor& Find(const std::string& name) const;
  std::string WhereEverybodyIs() const;

  std::map<std::string, std::unique_ptr<Actor>> actors_;
};

}  // namespace mmu::testing

#endif  // MMU_CORE_TESTING_INTERLEAVING_H_
