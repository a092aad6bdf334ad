// The place where a vCPU's thread stands still while its guest is paused, held
// or stopped.

#ifndef MMU_CORE_VM_VCPU_PARKING_PLACE_H_
#define MMU_CORE_VM_VCPU_PARKING_PLACE_H_

namespace mmu {

// Implemented by the owner of the vCPU threads, which checks it between two
// accesses. An access that has to wait (vm/vcpu/held_back.h) checks it as well.
class ParkingPlace {
 public:
  virtual ~ParkingPlace() = default;
  // Returns whether the vCPU's thread should call Park. Takes no lock.
  virtual bool IsWanted() const = 0;
  // Stands still until the vCPU may go on. False: the vCPU is to stop. Called
  // on the vCPU's thread, outside of guest mode and of RCU read sections, with
  // no lock held.
  virtual bool Park() = 0;
};

}  // namespace mmu

#endif  // MMU_CORE_VM_VCPU_PARKING_PLACE_H_
