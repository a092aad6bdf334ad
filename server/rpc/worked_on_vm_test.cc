#include "server/rpc/worked_on_vm.h"

#include "gtest/gtest.h"
#include "mmud/lab/v1/workload_service.pb.h"
#include "mmud/v1/vm_service.pb.h"

namespace mmud {
namespace {

TEST(WorkedOnVmTest, IsNamedByAFieldOrByWhatIsInTheVm) {
  v1::PauseVcpusRequest pause;
  pause.set_vm("vms/a");
  EXPECT_EQ(WorkedOnVm(pause), "vms/a");
  v1::UpdateVmRequest update;
  update.mutable_vm()->set_name("vms/b");
  EXPECT_EQ(WorkedOnVm(update), "vms/b");
  v1::DeleteMemslotRequest slot;
  slot.set_name("vms/c/memslots/3");
  EXPECT_EQ(WorkedOnVm(slot), "vms/c");
  lab::v1::StopWorkloadRequest stop;
  stop.set_name("vms/d/workloads/3b241101-e2bb-4255-8caf-4136c566a962");
  EXPECT_EQ(WorkedOnVm(stop), "vms/d");
}

TEST(WorkedOnVmTest, WhoMakesOrDeletesAVmWorksOnNone) {
  v1::CreateVmRequest create;
  create.set_vm_id("a");
  create.mutable_vm()->set_name("vms/a");
  EXPECT_EQ(WorkedOnVm(create), "");
  v1::DeleteVmRequest remove;
  remove.set_name("vms/a");
  EXPECT_EQ(WorkedOnVm(remove), "");
  remove.set_name("workloads/a/b");
  EXPECT_EQ(WorkedOnVm(remove), "");
}

}  // namespace
}  // namespace mmud
