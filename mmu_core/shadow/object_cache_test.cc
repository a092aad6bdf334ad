#include "mmu_core/shadow/object_cache.h"

#include <array>
#include <cstdint>
#include <optional>
#include <set>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/shadow/object_pool.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/testing/interleaving.h"

namespace mmu {
namespace {

using ::mmu::testing::Interleaving;

struct Object {
  Object() { ++alive; }
  ~Object() { --alive; }
  static inline int alive = 0;

  std::array<uint64_t, 20> words{};
};

TEST(ObjectCacheTest, ObjectsAreMadeWhenTheyAreTakenAndGoBackToTheirPool) {
  ObjectPool pool(sizeof(Object));
  ObjectCache<Object> cache(pool);
  ASSERT_TRUE(cache.TopUp(5).ok());
  EXPECT_EQ(cache.count(), ObjectCache<Object>::kCapacity);
  EXPECT_EQ(Object::alive, 0);

  Object* const object = cache.Take();
  EXPECT_EQ(Object::alive, 1);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(object) % 64, 0u);
  object->words.fill(7);
  ObjectCache<Object>::Return(object);
  EXPECT_EQ(Object::alive, 0);
  EXPECT_EQ(pool.objects_out(), 39u);

  ASSERT_TRUE(cache.TopUp(40).ok());
  for (int i = 0; i < 40; ++i) {
    Object* const again = cache.Take();
    EXPECT_EQ(again->words, Object().words) << "not what was left there";
    ObjectCache<Object>::Return(again);
  }
  EXPECT_EQ(pool.objects_out(), 0u);
}

TEST(ObjectCacheTest, PiecesOfManyBlocksDoNotOverlap) {
  ObjectPool pool(4096);
  const ObjectPool::Chain chain = pool.Take(200);
  ASSERT_EQ(chain.count, 200);
  std::set<uintptr_t> starts;
  for (FreeObject* o = chain.head; o != nullptr; o = o->next) {
    starts.insert(reinterpret_cast<uintptr_t>(o));
  }
  ASSERT_EQ(starts.size(), 200u);
  uintptr_t end = 0;
  for (const uintptr_t start : starts) {
    EXPECT_GE(start, end);
    end = start + 4096;
  }
  ObjectPool::Return(chain.head);
}

TEST(ObjectCacheTest, AFailedTopUpSaysSoAndKeepsWhatItGot) {
  ObjectPool pool(sizeof(Object), /*max_objects=*/4);
  ObjectCache<Object> cache(pool);
  const absl::Status status = cache.TopUp(5);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ErrnoName(DetailOf(status).kvm_errno), "ENOMEM");
  EXPECT_EQ(cache.count(), 4);
  EXPECT_TRUE(cache.TopUp(4).ok());
  pool.SetMaxObjects(0);
  EXPECT_TRUE(cache.TopUp(5).ok());
}

TEST(ObjectCacheTest, AtTheLimitObjectsInTheirGracePeriodAreWaitedFor) {
  using Cache = ObjectCache<Object>;
  ObjectPool pool(sizeof(Object), /*max_objects=*/2);
  Cache user(pool);
  ASSERT_TRUE(user.TopUp(2).ok());
  struct Retired {
    Object* object;
    RcuHook rcu;
  };
  Retired retired = {.object = user.Take(), .rcu = {}};
  std::optional<RcuReadGuard> reader(std::in_place);
  Cache::BeginGracePeriod(*retired.object);
  RcuDefer(
      &retired.rcu,
      [](void* arg) {
        Cache::EndGracePeriod(static_cast<Retired*>(arg)->object);
      },
      &retired);
  EXPECT_EQ(Object::alive, 1) << "somebody may still read it";
  Cache cache(pool);
  absl::Status status = absl::UnknownError("not yet");
  Interleaving threads;
  threads.Add("fault", [&] { status = cache.TopUp(1); });
  threads.RunTo("fault", HookPoint::kGracePeriod);
  reader.reset();
  threads.RunToEnd("fault");
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(cache.count(), 1);
  EXPECT_EQ(Object::alive, 0);
}

}  // namespace
}  // namespace mmu
