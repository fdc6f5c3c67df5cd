"""A schedule in plain PyTorch: `ratio` is a function for `LambdaLR`. `esper.schedules` imports no torch by itself."""

import torch
from torch.optim.lr_scheduler import LambdaLR

from esper.schedules import ScheduleConfig, make_schedule

UPDATES = 100

schedule = make_schedule(ScheduleConfig(peak=0.1, warmup_frac=0.1, decay="cosine"), UPDATES)

torch.manual_seed(0)
model = torch.nn.Linear(3, 1)
optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
scheduler = LambdaLR(optimizer, schedule.ratio)
inputs = torch.randn(64, 3)
for update in range(UPDATES):
    loss = (model(inputs) - inputs.sum(dim=1, keepdim=True)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    if update % 20 == 0:
        rate = scheduler.get_last_lr()[0]
        print(f"update {update:2}, {schedule.phase(update)}: rate {rate:.2e}, loss {loss.item():.3f}")
    optimizer.step()
    scheduler.step()
