// Where a vCPU's thread stands still when its guest is paused, held or stopped.

#ifndef MMU_CORE_VM_VCPU_PARKING_PLACE_H_
#define MMU_CORE_VM_VCPU_PARKING_PLACE_H_

namespace mmu {

// Of whoever runs the threads of vCPUs, who looks at it between two accesses.
// An access that has to wait (vm/vcpu/held_back.h) looks at it as well.
class ParkingPlace {
 public:
  virtual ~ParkingPlace() = default;
  // Whether the vCPU's thread should come to Park. Takes no lock.
  virtual bool IsWanted() const = 0;
  // On the vCPU's thread, outside of guest mode and of RCU read sections, with
  // no lock held: stands still until the vCPU may go on. False: it is to stop.
  virtual bool Park() = 0;
};

}  // namespace mmu

#endif  // MMU_CORE_VM_VCPU_PARKING_PLACE_H_
