"""What a training run is: its model, its loss and its predictions. A new way of training is a new Task, never a second loop."""
