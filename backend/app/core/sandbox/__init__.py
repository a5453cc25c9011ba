"""Running what strangers wrote: processes with as few rights as this machine lets us take from them."""
