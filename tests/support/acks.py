"""What librdkafka's idempotent producer was told is stored."""


class Acks(dict):
    """Values by partition and offset. The values are all different.

    The client takes a record for stored once a later one of its partition is: where both were
    stored and their leader died before it answered, the next one may refuse the first while it
    comes to office, and acknowledge the second. The client never learns that record's offset;
    here it is found again among what was read.
    """

    def __init__(self):
        super().__init__()
        # Values of those without an offset, and their partitions.
        self.unplaced = {}

    def note(self, message):
        """For a delivery report without an error."""
        if message.offset() is None:
            self.unplaced[message.value()] = message.partition()
        else:
            self[(message.partition(), message.offset())] = message.value()

    def place(self, read):
        """Finds the offsets that are not known, in values by partition and offset."""
        for at, value in read.items() if self.unplaced else ():
            if self.unplaced.get(value) == at[0]:
                del self.unplaced[value]
                self[at] = value

    def are_in(self, read):
        """Whether all of them were read."""
        self.place(read)
        return not self.unplaced and self.items() <= read.items()

    def check_same(self, found):
        """Asserts that these are the records that are there, and no others."""
        self.place(found)
        lost = sorted(at for at in self if found.get(at) != self[at])
        more = sorted(at for at in found if at not in self)
        assert not lost and not more and not self.unplaced, (
            f"lost or changed: {lost[:5]}; never acknowledged: {more[:5]}; "
            f"nowhere: {list(self.unplaced.items())[:5]}")
        assert len(set(found.values())) == len(found), "a record stands there twice"
