"""The paper, read in order: schedule, process, guidance, loss, samplers.

Everything meets at `eps_fn(z, logsnr, c) -> eps` with z [B, ...], logsnr [B] and c int32 [B].
"""
