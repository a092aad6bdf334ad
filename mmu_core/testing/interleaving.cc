#include "mmu_core/testing/interleaving.h"

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "mmu_core/base/check.h"
#include "mmu_core/testing/await.h"

namespace mmu::testing {
namespace {

std::string NameOf(HookPoint point) { return std::string(ToString(point)); }

}  // namespace

struct Interleaving::Actor {
  enum class State { kStanding, kRunning, kEnded };

  void At(HookPoint point) {
    std::unique_lock<std::mutex> lock(mu);
    trace.push_back(point);
    if (to_end || point != target || --remaining > 0) return;
    place = point;
    Stand(lock);
  }
  void Stand(std::unique_lock<std::mutex>& lock) {
    state = State::kStanding;
    changed.notify_all();
    changed.wait(lock, [this] { return state == State::kRunning; });
  }
  void SendTo(HookPoint point, int times) {
    const std::lock_guard<std::mutex> lock(mu);
    MMU_CHECK(state == State::kStanding);
    target = point;
    remaining = times;
    state = State::kRunning;
    changed.notify_all();
  }
  void SendToEnd() {
    const std::lock_guard<std::mutex> lock(mu);
    to_end = true;
    if (state == State::kStanding) state = State::kRunning;
    changed.notify_all();
  }
  // Returns false if the wait takes longer than kPatience.
  bool Await(bool may_stand) {
    std::unique_lock<std::mutex> lock(mu);
    return changed.wait_for(lock, kPatience, [&] {
      return state == State::kEnded || (may_stand && state == State::kStanding);
    });
  }

  std::mutex mu;
  std::condition_variable changed;
  State state = State::kStanding;
  HookPoint place = HookPoint::kStart;
  HookPoint target = HookPoint::kStart;
  int remaining = 0;
  bool to_end = false;
  std::vector<HookPoint> trace;
  std::thread thread;

  static constinit thread_local Actor* current;
};
constinit thread_local Interleaving::Actor* Interleaving::Actor::current =
    nullptr;

Interleaving::Interleaving() {
#ifdef NDEBUG
  MMU_CHECK(!"interleavings need a build with hooks");
#else
  MMU_CHECK(hook_fn.exchange(&OnHook) == nullptr);
#endif
}

Interleaving::~Interleaving() {
  for (auto& [name, actor] : actors_) actor->SendToEnd();
  for (auto& [name, actor] : actors_) actor->thread.join();
#ifndef NDEBUG
  hook_fn.store(nullptr);
#endif
}

void Interleaving::OnHook(HookPoint point) {
  if (Actor::current != nullptr) Actor::current->At(point);
}

void Interleaving::Add(const std::string& name, std::function<void()> body) {
  auto actor = std::make_unique<Actor>();
  Actor* const raw = actor.get();
  MMU_CHECK(actors_.emplace(name, std::move(actor)).second);
  raw->thread = std::thread([raw, body = std::move(body)] {
    Actor::current = raw;
    {
      std::unique_lock<std::mutex> lock(raw->mu);
      raw->changed.wait(lock,
                        [raw] { return raw->state == Actor::State::kRunning; });
    }
    body();
    Actor::current = nullptr;
    const std::lock_guard<std::mutex> lock(raw->mu);
    raw->state = Actor::State::kEnded;
    raw->changed.notify_all();
  });
}

Interleaving::Actor& Interleaving::Find(const std::string& name) const {
  const auto it = actors_.find(name);
  MMU_CHECK(it != actors_.end());
  return *it->second;
}

void Interleaving::RunTo(const std::string& name, HookPoint point, int times) {
  Find(name).SendTo(point, times);
  WaitUntilThere(name);
}

void Interleaving::StartTo(const std::string& name, HookPoint point) {
  Find(name).SendTo(point, 1);
}

void Interleaving::WaitUntilThere(const std::string& name) {
  Actor& actor = Find(name);
  if (actor.Await(/*may_stand=*/true) && !HasEnded(name)) return;
  std::fprintf(stderr, "%s did not reach %s:\n%s", name.c_str(),
               NameOf(actor.target).c_str(), WhereEverybodyIs().c_str());
  std::abort();
}

void Interleaving::RunToEnd(const std::string& name) {
  Start(name);
  WaitForEnd(name);
}

void Interleaving::Start(const std::string& name) { Find(name).SendToEnd(); }

void Interleaving::WaitForEnd(const std::string& name) {
  if (Find(name).Await(/*may_stand=*/false)) return;
  std::fprintf(stderr, "%s did not end:\n%s", name.c_str(),
               WhereEverybodyIs().c_str());
  std::abort();
}

bool Interleaving::HasEnded(const std::string& name) const {
  Actor& actor = Find(name);
  const std::lock_guard<std::mutex> lock(actor.mu);
  return actor.state == Actor::State::kEnded;
}

bool Interleaving::EndsSoon(const std::string& name) const {
  for (int i = 0; i < 100 && !HasEnded(name); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return HasEnded(name);
}

std::vector<HookPoint> Interleaving::Trace(const std::string& name) const {
  Actor& actor = Find(name);
  const std::lock_guard<std::mutex> lock(actor.mu);
  return actor.trace;
}

std::string Interleaving::WhereEverybodyIs() const {
  std::string text;
  for (const auto& [name, actor] : actors_) {
    const std::lock_guard<std::mutex> lock(actor->mu);
    text += "  " + name;
    switch (actor->state) {
      case Actor::State::kStanding:
        text += " stands at " + NameOf(actor->place);
        break;
      case Actor::State::kRunning:
        text += " runs or waits, last hook " +
                (actor->trace.empty() ? std::string("none")
                                      : NameOf(actor->trace.back()));
        break;
      case Actor::State::kEnded:
        text += " has ended";
        break;
    }
    text += "\n";
  }
  return text;
}

}  // namespace mmu::testing
