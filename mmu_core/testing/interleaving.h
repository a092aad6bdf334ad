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
// Whoever does not get where it is sent within kPatience ends the test with a
// list of who stands where.

#ifndef MMU_CORE_TESTING_INTERLEAVING_H_
#define MMU_CORE_TESTING_INTERLEAVING_H_

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "mmu_core/base/hooks.h"

namespace mmu::testing {

// One at a time in a process. Its functions are for the thread that made it;
// other threads of the process pass all hooks.
class Interleaving {
 public:
  Interleaving();
  // Lets everybody run to the end.
  ~Interleaving();
  Interleaving(const Interleaving&) = delete;
  Interleaving& operator=(const Interleaving&) = delete;

  // A thread that stands before its first step.
  void Add(const std::string& name, std::function<void()> body);

  // Lets it run until it reaches `point` for the `times`-th time from here, or
  // to its end. Meanwhile all others stand, except those that Start sent off.
  void RunTo(const std::string& name, HookPoint point, int times = 1);
  void RunToEnd(const std::string& name);

  // The same without waiting for it: it may have to wait for something that
  // another thread does. Then WaitUntilThere, or WaitForEnd.
  void StartTo(const std::string& name, HookPoint point);
  void WaitUntilThere(const std::string& name);
  void Start(const std::string& name);
  void WaitForEnd(const std::string& name);
  bool HasEnded(const std::string& name) const;

  // The hooks that `name` has passed so far, in order, the one it stands at
  // included.
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
