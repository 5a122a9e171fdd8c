// The handles of a pool's slots: each verb and each drop is one call into the pool.
#include "terrace/catalog/pool.h"

namespace terrace::catalog {

Pin& Pin::operator=(Pin&& other) noexcept {
  if (this == &other) return *this;
  reset();
  pool_ = std::exchange(other.pool_, nullptr);
  slot_ = other.slot_;
  return *this;
}

void Pin::reset() {
  if (Pool* pool = std::exchange(pool_, nullptr); pool != nullptr) pool->unpin(slot_);
}

PinRun& PinRun::operator=(PinRun&& other) noexcept {
  if (this == &other) return *this;
  shrink(0);
  pins_ = std::move(other.pins_);
  return *this;
}

FillingSlot& FillingSlot::operator=(FillingSlot&& other) noexcept {
  if (this == &other) return *this;
  const FillingSlot dropped(std::move(*this));
  pool_ = std::exchange(other.pool_, nullptr);
  slot_ = other.slot_;
  return *this;
}

FillingSlot::~FillingSlot() {
  if (pool_ != nullptr) pool_->abandon(slot_, SlotState::kFilling);
}

std::optional<Pin> FillingSlot::seal() && {
  Pool* pool = std::exchange(pool_, nullptr);
  return pool == nullptr ? std::nullopt : pool->seal(slot_);
}

void FillingSlot::quarantine() && {
  if (Pool* pool = std::exchange(pool_, nullptr); pool != nullptr) pool->quarantine(slot_);
}

ReservedSlot& ReservedSlot::operator=(ReservedSlot&& other) noexcept {
  if (this == &other) return *this;
  const ReservedSlot dropped(std::move(*this));
  pool_ = std::exchange(other.pool_, nullptr);
  slot_ = other.slot_;
  return *this;
}

ReservedSlot::~ReservedSlot() {
  if (pool_ != nullptr) pool_->abandon(slot_, SlotState::kReserved);
}

FillingSlot ReservedSlot::begin_fill() && {
  Pool* pool = std::exchange(pool_, nullptr);
  if (pool == nullptr) return {};
  pool->start_filling(slot_);
  return {pool, slot_};
}

EvictingSlot& EvictingSlot::operator=(EvictingSlot&& other) noexcept {
  if (this == &other) return *this;
  reset();
  pool_ = std::exchange(other.pool_, nullptr);
  slot_ = other.slot_;
  return *this;
}

void EvictingSlot::reset() {
  if (Pool* pool = std::exchange(pool_, nullptr); pool != nullptr) pool->end_evict(slot_, false);
}

bool EvictingSlot::is_rescued() const {
  return pool_ != nullptr && pool_->state(slot_.index) != SlotState::kEvicting;
}

void EvictingSlot::keep() && {
  if (Pool* pool = std::exchange(pool_, nullptr); pool != nullptr) pool->end_evict(slot_, true);
}

}  // namespace terrace::catalog
