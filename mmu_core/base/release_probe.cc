// A function with a hook, compiled as in a release build, for
// hooks_release_test.

#include "mmu_core/base/hooks.h"

namespace mmu {

void ReleaseProbe(HookPoint point);
void ReleaseProbe(HookPoint point) { AtHook(point); }

}  // namespace mmu
